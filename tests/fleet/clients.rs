//! Go's clients, which find proxies by Sync and by gRPC naming.
