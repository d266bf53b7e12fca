//! Loads the TLS configuration of one side from its files, at start and after each change.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::files::{FileContents, FlagFile};
use super::reload::Reloader;
use crate::error::StartError;
use crate::metrics::TlsSide;

/// The files of one side, and how the configuration of this side is built from them.
pub(super) trait TlsMaterial: Send + 'static {
    /// Name of the side in log messages: `clients` or `etcd`.
    const SIDE: &'static str;

    /// The configuration that handshakes use.
    type Config: Send + Sync + 'static;

    /// Returns all files that the configuration depends on.
    fn files(&self) -> Vec<FlagFile>;

    /// Returns the certificate that this side presents, if any.
    fn certificate(&self) -> Option<&FlagFile>;

    /// Builds the configuration from one reading of the files. `counts` are the metrics of the
    /// side.
    ///
    /// # Errors
    /// A file could not be read, or its content is invalid.
    fn build(
        &self,
        contents: &FileContents,
        counts: &Arc<TlsSide>,
    ) -> Result<Self::Config, StartError>;
}

/// Pointer to the configuration that handshakes use. A reload replaces the configuration.
pub(super) type Current<M> = Arc<ArcSwap<<M as TlsMaterial>::Config>>;

/// Builds the first configuration of a side. Returns a pointer to the current configuration, and
/// the [`Reloader`] that replaces this configuration when the files change. Each new configuration
/// reports the expiry of its certificate to `counts`.
///
/// # Errors
/// A file could not be read, or its content is invalid.
pub(super) fn load<M: TlsMaterial>(
    material: M,
    counts: Arc<TlsSide>,
) -> Result<(Current<M>, Reloader), StartError> {
    let side = counts.clone();
    Reloader::new(M::SIDE, material.files(), counts, move |contents| {
        let config = material.build(contents, &side)?;
        let certificate = material.certificate();
        side.enable(certificate.and_then(|file| contents.not_after(file)));
        Ok(config)
    })
}
