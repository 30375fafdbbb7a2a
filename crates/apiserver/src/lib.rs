//! The embedded Kubernetes API: store, watch, patch, admission, discovery, authentication. Knows neither StatefulSet decisions nor the node.
