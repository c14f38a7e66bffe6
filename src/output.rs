//! Output files appear whole or not at all.
//!
//! Each file is written under a temporary name in its own folder and renamed at [`Staged::commit`]; what is dropped before that leaves
//! nothing behind. Folders are checked before any work starts, so that an hour of training is not lost to a typing error.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use crate::failure::{Classify, Failure};

/// Refuses a file path that could not be written at the end: its folder is missing or not writable, or the path is a folder.
///
/// # Errors
/// A usage failure that names the path.
pub fn check_file(path: &Path) -> Result<()> {
    if path.file_name().is_none() || path.is_dir() {
        return Err(Failure::usage(format!("output {} is a folder, not a file", path.display()))
            .help("name a file")
            .into());
    }
    check_folder(&folder_of(path), path)
}

/// Refuses a folder path that could not be made or filled at the end.
///
/// # Errors
/// A usage failure that names the path.
pub fn check_directory(path: &Path) -> Result<()> {
    if path.is_dir() {
        return check_folder(path, path);
    }
    if path.exists() {
        return Err(Failure::usage(format!("output folder {} is a file", path.display()))
            .help("name a folder")
            .into());
    }
    check_folder(&folder_of(path), path)
}

fn check_folder(folder: &Path, output: &Path) -> Result<()> {
    if !folder.is_dir() {
        let message = format!(
            "output {} cannot be written: there is no folder {}",
            output.display(),
            folder.display()
        );
        return Err(Failure::usage(message)
            .help(format!("make it first: mkdir -p {}", folder.display()))
            .into());
    }
    tempfile::tempfile_in(folder)
        .map(drop)
        .with_context(|| {
            format!(
                "output {} cannot be written: folder {} takes no new file",
                output.display(),
                folder.display()
            )
        })
        .help("choose another output with -o")
        .usage()
}

/// Do two paths name the same file, which need not be there yet?
#[must_use]
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    let resolved = |path: &Path| {
        let folder = fs::canonicalize(folder_of(path)).ok();
        fs::canonicalize(path).ok().or_else(|| Some(folder?.join(path.file_name()?)))
    };
    a == b || resolved(a).is_some_and(|a| resolved(b) == Some(a))
}

/// The folder that a path is in; `.` for a bare name.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Files that are written but not yet there.
#[derive(Debug, Default)]
pub struct Staged {
    files: Vec<(NamedTempFile, PathBuf)>,
    folders: Vec<PathBuf>,
}

impl Staged {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Staged {
        Staged::default()
    }

    /// Writes `bytes` for `path`.
    ///
    /// # Errors
    /// A usage failure if the folder or disk refuses.
    pub fn file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.file_with(path, |out| out.write_all(bytes))
    }

    /// Lets `write` write for `path`.
    ///
    /// # Errors
    /// A usage failure if the folder or disk refuses.
    pub fn file_with(&mut self, path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
        let folder = folder_of(path);
        // A folder that is made at commit has its files staged beside it: a rename must stay on one file system.
        let beside = if self.folders.contains(&folder) {
            folder_of(&folder)
        } else {
            folder
        };
        let staged = (|| {
            let file = temporary(&beside)?;
            let mut out = BufWriter::new(file);
            write(&mut out)?;
            out.into_inner().map_err(std::io::IntoInnerError::into_error)
        })();
        let file = staged.with_context(|| format!("cannot write {}", path.display())).usage()?;
        self.files.push((file, path.to_owned()));
        Ok(())
    }

    /// The folder `path` will be made at commit if it is not there; call it before staging files in it.
    pub fn directory(&mut self, path: &Path) {
        if !path.is_dir() {
            self.folders.push(path.to_owned());
        }
    }

    /// Makes everything appear, in the order of staging.
    ///
    /// # Errors
    /// A usage failure if a rename is refused; what had not appeared by then never does.
    pub fn commit(self) -> Result<()> {
        for folder in &self.folders {
            fs::create_dir(folder)
                .with_context(|| format!("cannot make folder {}", folder.display()))
                .usage()?;
        }
        for (file, path) in self.files {
            file.persist(&path)
                .with_context(|| format!("cannot write {}", path.display()))
                .usage()?;
        }
        Ok(())
    }
}

fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lsqc-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file: everything that the umask allows, where temporary files would be private.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn appears_at_commit_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut staged = Staged::new();
        staged.file(&folder.path().join("a"), b"one").unwrap();
        assert!(!folder.path().join("a").exists());
        staged.commit().unwrap();
        assert_eq!(names(folder.path()), ["a"]);
        assert_eq!(fs::read(folder.path().join("a")).unwrap(), b"one");
    }

    #[test]
    fn dropped_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut staged = Staged::new();
        staged.file(&folder.path().join("a"), b"one").unwrap();
        drop(staged);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn folders_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let step = folder.path().join("step");
        check_directory(&step).unwrap();
        let mut staged = Staged::new();
        staged.directory(&step);
        staged.file(&step.join("step.onnx"), b"x").unwrap();
        assert!(!step.exists());
        staged.commit().unwrap();
        assert_eq!(names(&step), ["step.onnx"]);
        assert_eq!(names(folder.path()), ["step"]);
    }

    #[test]
    fn missing_folder_is_refused() {
        let error = check_file(Path::new("/nowhere/at/all/x.onnx")).unwrap_err();
        let text = crate::failure::render(&error);
        assert!(
            text.contains("/nowhere/at/all/x.onnx") && text.contains("mkdir -p /nowhere/at/all"),
            "{text}"
        );
    }
}
