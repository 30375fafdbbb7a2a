//! One file a command.

pub(crate) mod apiserver;
pub(crate) mod apply;
pub(crate) mod attach;
pub(crate) mod cleanup;
pub(crate) mod delete;
pub(crate) mod dns;
pub(crate) mod down;
pub(crate) mod exec;
pub(crate) mod get;
pub(crate) mod image;
pub(crate) mod kubeconfig;
pub(crate) mod logs;
pub(crate) mod port_forward;
pub(crate) mod scale;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod version;
