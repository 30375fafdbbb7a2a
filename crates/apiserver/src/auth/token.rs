//! Service account tokens: JSON Web Tokens signed with ES256 by a key that only this server has; its public half is told.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Who signs, and for whom where a request does not say.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Bytes of one coordinate of a point on P-256.
const COORDINATE: usize = 32;

/// The key that signs service account tokens. Clones share it.
#[derive(Clone)]
pub struct TokenKey {
    pair: Arc<EcdsaKeyPair>,
    /// Names the key in tokens and in the key set.
    id: Arc<str>,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TokenKey").field(&self.id).finish()
    }
}

/// The key is none, or could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a P-256 key in PKCS#8, or the operating system gave no random bytes")]
pub struct NoKey;

impl TokenKey {
    /// A new key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<TokenKey, NoKey> {
        Self::from_pkcs8(&Self::generate_pkcs8()?)
    }

    /// A new key as PKCS#8.
    pub(crate) fn generate_pkcs8() -> Result<Vec<u8>, NoKey> {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
        Ok(made.map_err(|_| NoKey)?.as_ref().to_vec())
    }

    /// The key of a PKCS#8 document.
    pub(crate) fn from_pkcs8(document: &[u8]) -> Result<TokenKey, NoKey> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document, &random)
            .map_err(|_| NoKey)?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.public_key().as_ref()));
        Ok(TokenKey {
            pair: Arc::new(pair),
            id: id.into(),
        })
    }

    /// The public half as a JSON Web Key Set.
    pub(crate) fn key_set(&self) -> Value {
        // An uncompressed point: a tag, x, y.
        let point = self.pair.public_key().as_ref();
        let coordinate = |from: usize| {
            URL_SAFE_NO_PAD.encode(point.get(from..from + COORDINATE).unwrap_or_default())
        };
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": *self.id,
            "x": coordinate(1), "y": coordinate(1 + COORDINATE),
        }]})
    }

    /// The token of these claims. `None` when the operating system gives no random bytes: each signature takes some,
    /// the one thing in an answer that is chance and not the request's seed.
    pub(crate) fn sign(&self, claims: &Value) -> Option<String> {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": *self.id});
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature.ok()?.as_ref());
        Some(format!("{signed}.{signature}"))
    }

    /// The claims of a token that this key signed.
    pub(crate) fn verify(&self, token: &str) -> Option<Value> {
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        if header["alg"] != "ES256" || header["kid"] != *self.id {
            return None;
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .ok()?;
        serde_json::from_slice(&decode(claims)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_that_signed_a_token_takes_it_and_only_unchanged() {
        let (own, other) = (
            TokenKey::generate().expect("a key"),
            TokenKey::generate().expect("a key"),
        );
        let token = own.sign(&json!({"sub": "me"})).expect("signed");
        assert_eq!(own.verify(&token), Some(json!({"sub": "me"})));
        assert_eq!(other.verify(&token), None);
        let parts: Vec<&str> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(json!({"sub": "you"}).to_string());
        assert_eq!(
            own.verify(&format!("{}.{forged}.{}", parts[0], parts[2])),
            None
        );
        let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "kid": *own.id}).to_string());
        assert_eq!(own.verify(&format!("{none}.{}.", parts[1])), None);
        assert_eq!(own.verify("a.b.c"), None);
    }

    #[test]
    fn the_key_set_holds_what_verifies() {
        let key = TokenKey::generate().expect("a key");
        let token = key.sign(&json!({})).expect("signed");
        let set = key.key_set();
        let own = &set["keys"][0];
        let part = |name: &str| {
            URL_SAFE_NO_PAD
                .decode(own[name].as_str().expect("text"))
                .expect("base64")
        };
        let point: Vec<u8> = std::iter::once(4)
            .chain(part("x"))
            .chain(part("y"))
            .collect();
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &signature)
            .expect("the told key verifies");
    }
}
