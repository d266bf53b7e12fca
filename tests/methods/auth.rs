//! Calls of the Auth service: users and roles, then every kind of credential with authentication
//! enabled.

use crate::recording::Recorder;
use crate::support::pb::{self, Msg};

pub(crate) async fn run(etcd: &mut Recorder) {
    etcd.unary("Auth/AuthStatus", "off", Msg::new(), 0).await;
    etcd.unary("Auth/AuthEnable", "without root", Msg::new(), 9)
        .await;
    etcd.unary("Auth/Authenticate", "while off", login("ann", "secret"), 9)
        .await;
    users(etcd).await;
    roles(etcd).await;
    etcd.unary("Auth/AuthEnable", "with root", Msg::new(), 0)
        .await;
    credentials(etcd).await;
}

fn login(name: &str, password: &str) -> Msg {
    Msg::new().bytes(1, name).bytes(2, password)
}

fn name(name: &str) -> Msg {
    Msg::new().bytes(1, name)
}

async fn users(etcd: &mut Recorder) {
    etcd.unary("Auth/UserAdd", "root", login("root", "secret"), 0)
        .await;
    etcd.unary("Auth/UserAdd", "ann", login("ann", "secret"), 0)
        .await;
    etcd.unary("Auth/UserAdd", "ann again", login("ann", "secret"), 9)
        .await;
    etcd.unary("Auth/UserAdd", "no name", login("", "secret"), 3)
        .await;
    let no_password = Msg::new().bytes(1, "bob").msg(3, Msg::new().int(1, 1));
    etcd.unary("Auth/UserAdd", "bob, without a password", no_password, 0)
        .await;
    etcd.unary(
        "Auth/UserChangePassword",
        "of ann",
        login("ann", "changed"),
        0,
    )
    .await;
    etcd.unary(
        "Auth/UserChangePassword",
        "of an unknown user",
        login("none", "x"),
        9,
    )
    .await;
    etcd.unary("Auth/UserGet", "ann", name("ann"), 0).await;
    etcd.unary("Auth/UserGet", "an unknown user", name("none"), 9)
        .await;
    etcd.unary("Auth/UserList", "all", Msg::new(), 0).await;
    etcd.unary("Auth/UserDelete", "bob", name("bob"), 0).await;
    etcd.unary("Auth/UserDelete", "bob again", name("bob"), 9)
        .await;
}

async fn roles(etcd: &mut Recorder) {
    let grant = |user: &str, role: &str| Msg::new().bytes(1, user).bytes(2, role);
    etcd.unary("Auth/RoleAdd", "root", name("root"), 0).await;
    etcd.unary("Auth/RoleAdd", "reader", name("reader"), 0)
        .await;
    etcd.unary("Auth/RoleAdd", "reader again", name("reader"), 9)
        .await;
    etcd.unary("Auth/RoleAdd", "spare", name("spare"), 0).await;
    let read = Msg::new().bytes(2, "a").bytes(3, "b");
    let permit = |role: &str, permission: Msg| Msg::new().bytes(1, role).msg(2, permission);
    let path = "Auth/RoleGrantPermission";
    etcd.unary(path, "to read", permit("reader", read.clone()), 0)
        .await;
    etcd.unary(
        path,
        "to write",
        permit("reader", Msg::new().int(1, 1).bytes(2, "w")),
        0,
    )
    .await;
    etcd.unary(path, "to an unknown role", permit("none", read), 9)
        .await;
    etcd.unary("Auth/RoleGet", "reader", name("reader"), 0)
        .await;
    etcd.unary("Auth/RoleGet", "no role", name("none"), 9).await;
    etcd.unary("Auth/RoleList", "all", Msg::new(), 0).await;
    let revoke = || Msg::new().bytes(1, "reader").bytes(2, "w");
    etcd.unary("Auth/RoleRevokePermission", "to write", revoke(), 0)
        .await;
    etcd.unary("Auth/RoleRevokePermission", "not granted", revoke(), 9)
        .await;
    etcd.unary(
        "Auth/UserGrantRole",
        "root to root",
        grant("root", "root"),
        0,
    )
    .await;
    etcd.unary(
        "Auth/UserGrantRole",
        "reader to ann",
        grant("ann", "reader"),
        0,
    )
    .await;
    etcd.unary(
        "Auth/UserGrantRole",
        "spare to ann",
        grant("ann", "spare"),
        0,
    )
    .await;
    etcd.unary(
        "Auth/UserGrantRole",
        "to an unknown user",
        grant("none", "reader"),
        9,
    )
    .await;
    etcd.unary(
        "Auth/UserRevokeRole",
        "spare of ann",
        grant("ann", "spare"),
        0,
    )
    .await;
    etcd.unary(
        "Auth/UserRevokeRole",
        "not granted",
        grant("ann", "spare"),
        9,
    )
    .await;
    etcd.unary("Auth/RoleDelete", "spare", name("spare"), 0)
        .await;
    etcd.unary("Auth/RoleDelete", "spare again", name("spare"), 9)
        .await;
}

async fn credentials(etcd: &mut Recorder) {
    let path = "Auth/Authenticate";
    etcd.unary(path, "a wrong password", login("ann", "secret"), 3)
        .await;
    etcd.unary(path, "an unknown user", login("none", "secret"), 3)
        .await;
    // Tokens are random, so they are masked.
    let root = etcd
        .masked(path, "root", login("root", "secret"), 0, &[&[2]])
        .await;
    let ann = etcd
        .masked(path, "ann", login("ann", "changed"), 0, &[&[2]])
        .await;
    let token = |reply: &[u8]| String::from_utf8(pb::bytes(reply, &[2])).expect("an ASCII token");
    let (root, ann) = (token(root.only()), token(ann.only()));

    let bearer = format!("Bearer {ann}");
    for (case, token, read, write, list) in [
        ("without a token", None, 3, 3, 3),
        ("ann", Some(("token", ann.clone())), 0, 7, 7),
        (
            "ann, as authorization",
            Some(("authorization", ann)),
            0,
            7,
            7,
        ),
        ("ann, as bearer", Some(("authorization", bearer)), 0, 7, 7),
        (
            "a bad token",
            Some(("token", "bad.1".to_owned())),
            16,
            16,
            16,
        ),
        ("root", Some(("token", root)), 0, 0, 0),
    ] {
        etcd.authorize(token);
        etcd.unary("KV/Range", case, name("a"), read).await;
        etcd.unary("KV/Put", case, name("a"), write).await;
        etcd.unary("Auth/UserList", case, Msg::new(), list).await;
        refused_watch(etcd, case).await;
    }
    etcd.unary("Auth/AuthStatus", "on", Msg::new(), 0).await;
    etcd.unary("Auth/AuthDisable", "as root", Msg::new(), 0)
        .await;
    etcd.authorize(None);
}

async fn refused_watch(etcd: &mut Recorder, case: &str) {
    let mut stream = etcd.open("Watch/Watch").await;
    stream
        .send(Msg::new().msg(1, Msg::new().bytes(1, "elsewhere")))
        .await;
    stream.next().await;
    stream.cancel();
    etcd.record("Watch/Watch", case, stream.finish().await, None, &[]);
}
