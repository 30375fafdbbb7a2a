//! The facts of the Kubernetes API as one table: defaulting, type validation, patch merge keys, field sets, protobuf numbers. Pure: no IO, no clock; knows no other crate of Stead.
