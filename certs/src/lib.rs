//! The certificate of a Throughline server: made and rotated in development, read from files in production.
//!
//! A browser accepts a self-signed certificate over WebTransport when the page names its SHA-256
//! (`serverCertificateHashes`), on conditions that the W3C WebTransport specification sets: ECDSA on
//! P-256, valid for at most 14 days, valid now. [`DevCertificates`] keeps such a certificate in a
//! folder, and the next one beside it, so that a page which knows both hashes lives through the change.
//! [`FileCertificates`] serves a chain and key of the user's own, and takes up new ones while running.

mod certificate;
mod development;
mod files;
mod folder;
mod format;
mod generations;

pub use certificate::{Certificate, MintError};
pub use development::{DevCertificates, DevError, Rotation};
pub use files::{FileCertificates, FileError};
pub use folder::{FolderError, NoDefaultFolder, default_folder};
pub use format::{base64, hex, javascript, rfc3339};
pub use generations::{NEXT_AFTER, SWITCH_BEFORE, VALIDITY};
