//! A URL that may hold a password: as it is, or in a file.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a URL is. A file is read at each use, so that what was rotated is used without a restart.
#[derive(Clone)]
pub enum Secret {
    /// The URL.
    Text(Arc<str>),
    /// The file that holds it, and the setting that names the file.
    File(PathBuf, &'static str),
}

impl Secret {
    /// The URL as it is now.
    ///
    /// # Errors
    /// A sentence that names the file and the setting.
    pub fn read(&self) -> Result<String, String> {
        let (file, setting) = match self {
            Self::Text(text) => return Ok(text.to_string()),
            Self::File(file, setting) => (file, setting),
        };
        let name = file.display();
        match std::fs::read_to_string(file) {
            Ok(text) if text.trim().is_empty() => {
                Err(format!("the file {name} ({setting}) is empty; it must hold the URL"))
            }
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(format!("cannot read {name} ({setting}): {error}")),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Secret"),
            Self::File(file, _) => write!(f, "Secret in {}", file.display()),
        }
    }
}

impl From<&str> for Secret {
    fn from(url: &str) -> Self {
        Self::Text(url.into())
    }
}
