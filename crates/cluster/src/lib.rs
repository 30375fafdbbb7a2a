//! The one-machine cluster: composes API server, controller and node, with the few small controllers a cluster needs. Each of those meets the rest only through the API.
