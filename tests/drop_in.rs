//! What starts under `etcd grpc-proxy` starts here (S5): both programs are started with the same
//! flags, and etcdctl puts and gets a key through each.

#[path = "drop_in/e2e.rs"]
mod e2e;
#[path = "drop_in/scene.rs"]
mod scene;
#[path = "drop_in/settings.rs"]
mod settings;
mod support;
