//! Lives told as text: what is done with a pod whose containers do this and that.
