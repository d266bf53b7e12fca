//! The file of a listening Unix socket: created, replaced if it is stale, and removed at the end.
//!
//! The file stays when a process is killed. A file that no process listens on is therefore replaced.
//! A file that a process listens on, and a file that is no socket, are never removed.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that the kernel may queue before they are accepted. The kernel applies its own
/// limit.
pub(super) const BACKLOG: i32 = 4096;

/// The file of a listening socket. Dropping it removes the file, unless another one has replaced it.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode of the file.
    id: (u64, u64),
}

impl SocketFile {
    /// Listens on a Unix socket. Its file has the permissions `mode` before the first client can
    /// connect.
    ///
    /// # Errors
    /// `AddrInUse`: a process listens on the path. `AlreadyExists`: the path is not a socket.
    /// Others: the path is too long, or the system refuses a step.
    pub(super) fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
        let address = SockAddr::unix(path)?;
        remove_stale(path, &address)?;
        let socket = new_socket()?;
        socket.bind(&address)?;
        let metadata = fs::symlink_metadata(path)?;
        let file = SocketFile {
            path: path.to_owned(),
            id: (metadata.dev(), metadata.ino()),
        };
        // No client can connect before `listen`.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        Ok((socket.into(), file))
    }

    /// Returns the path as configured.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|file| (file.dev(), file.ino()) == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "removing the socket file failed");
        }
    }
}

/// Removes the file of a socket that no process listens on.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            let reason = "the path exists and is not a socket";
            return Err(io::Error::new(ErrorKind::AlreadyExists, reason));
        }
        Ok(_) => {}
    }
    match new_socket()?.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error),
        // Connected, or the queue of the listener is full, or the socket has another type.
        _ => Err(ErrorKind::AddrInUse.into()),
    }
}

fn new_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::{SocketFile, remove_stale};
    use socket2::SockAddr;
    use std::io::ErrorKind;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    #[test]
    fn file_has_its_mode_and_is_removed_with_the_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.sock");
        for mode in [0o600, 0o666] {
            let (_listener, _file) = SocketFile::bind(&path, mode).unwrap();
            let found = path.metadata().unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode);
            UnixStream::connect(&path).unwrap();
        }
        assert!(!path.exists());
    }

    #[test]
    fn stale_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.sock");
        // The standard library leaves the file behind.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = SocketFile::bind(&path, 0o600).unwrap();
        let error = SocketFile::bind(&path, 0o600).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert_eq!(error.to_string(), "address in use");
        UnixStream::connect(&path).unwrap();
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn full_queue_is_a_live_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.sock");
        let address = SockAddr::unix(&path).unwrap();
        let listener = super::new_socket().unwrap();
        listener.bind(&address).unwrap();
        listener.listen(0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        let error = remove_stale(&path, &address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    #[test]
    fn other_files_are_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let refused = |kind| {
            let error = SocketFile::bind(&path, 0o600).err().unwrap();
            assert_eq!(error.kind(), kind, "{error}");
        };
        std::fs::write(&path, "text").unwrap();
        refused(ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
        std::fs::remove_file(&path).unwrap();
        // A symbolic link to a stale socket.
        let stale = dir.path().join("stale");
        drop(UnixListener::bind(&stale).unwrap());
        std::os::unix::fs::symlink(&stale, &path).unwrap();
        refused(ErrorKind::AlreadyExists);
        assert!(stale.exists() && path.is_symlink());
        std::fs::remove_file(&path).unwrap();
        // A socket of another type.
        let _datagram = UnixDatagram::bind(&path).unwrap();
        refused(ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    #[test]
    fn file_of_another_listener_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.sock");
        let (_listener, file) = SocketFile::bind(&path, 0o600).unwrap();
        // Both files exist, so their inodes differ.
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
