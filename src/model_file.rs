//! Model files: ONNX (with its external data) and, under the name `*.onnxtxt`, the text form.
//!
//! Files are memory-mapped, and tensors are slices of the maps. External data is looked for in the model's folder and below it only: a
//! model that names an absolute path, goes up with `..`, or has a link that leads out of the folder, is refused, since a model may come
//! from anyone. Models over 2 GB are written with their large tensors in `NAME.data` beside them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use lsqc_passes::ir::Model;
use lsqc_passes::onnx::{self, ExternalData, OwnOps, Warning, WriteOptions};
use lsqc_passes::text;

use crate::failure::{Classify, Failure};
use crate::output::Staged;

/// The ending of file names under which a model is text.
pub const TEXT_EXTENSION: &str = "onnxtxt";

/// A model that was read.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// The model.
    pub model: Model,
    /// What is remarkable about the file.
    pub warnings: Vec<Warning>,
    /// The file itself, without external data.
    pub bytes: Bytes,
}

/// Reads a model.
///
/// # Errors
/// Bad input, naming the file, what is wrong in it, and the cure.
pub fn read(path: &Path) -> Result<ModelFile> {
    let bytes = map(path)
        .with_context(|| format!("cannot read the model {}", path.display()))
        .bad_input()?;
    if is_text(path) {
        return parse(path, bytes);
    }
    let folder = Folder::of(path);
    match onnx::read(bytes.clone(), &folder) {
        Ok((model, warnings)) => Ok(ModelFile { model, warnings, bytes }),
        Err(error) => {
            let help = error.help();
            Err(anyhow!(error))
                .with_context(|| format!("cannot read the model {}", path.display()))
                .help(help)
                .bad_input()
        }
    }
}

/// Is this the name of a model in the text form?
#[must_use]
pub fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == TEXT_EXTENSION)
}

fn parse(path: &Path, bytes: Bytes) -> Result<ModelFile> {
    let text = std::str::from_utf8(&bytes).map_err(anyhow::Error::from);
    let model = text.and_then(|text| Ok(text::parse(text)?));
    let model = model
        .with_context(|| format!("cannot read the model {}", path.display()))
        .bad_input()?;
    Ok(ModelFile {
        model,
        warnings: Vec::new(),
        bytes,
    })
}

/// Stages a model for `path`, and beside it the file for the tensors of one that is over 2 GB. Gives what they are, the model first.
///
/// # Errors
/// If the folder or disk refuses (usage), or an op is left that only lsqc knows.
pub fn stage(staged: &mut Staged, path: &Path, model: &Model, own_ops: OwnOps) -> Result<Vec<(PathBuf, Bytes)>> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let options = WriteOptions {
        own_ops,
        external_file: format!("{}.data", name.unwrap_or_default()),
        ..WriteOptions::default()
    };
    stage_with(staged, path, model, &options)
}

fn stage_with(staged: &mut Staged, path: &Path, model: &Model, options: &WriteOptions) -> Result<Vec<(PathBuf, Bytes)>> {
    let written = onnx::write(model, options).with_context(|| format!("cannot write {}", path.display()))?;
    let mut files = vec![(path.to_owned(), written.model.clone())];
    // The tensors first: once the model is there, so are they.
    if let Some(external) = &written.external {
        let (beside, content) = (path.with_file_name(&external.name), external.content());
        staged.file(&beside, &content)?;
        files.push((beside, content.into()));
    }
    staged.file(path, &written.model)?;
    Ok(files)
}

/// A file's bytes, mapped into memory.
fn map(path: &Path) -> Result<Bytes> {
    // Asked before it is opened: opening a pipe would wait for a writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        let kind = if metadata.is_dir() { "a folder" } else { "no regular file" };
        return Err(Failure::bad_input(format!("this is {kind}")).into());
    }
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: The map is only read. Its bytes change under us only if another process writes into the file while we run; the tool
    // itself never does (outputs are new files that take over the name, see `output`), and any bytes are valid as `u8`. A file that is
    // made shorter meanwhile ends the process, as it does every program that maps its input.
    #[allow(unsafe_code)]
    let map = unsafe { memmap2::Mmap::map(&file) }?;
    Ok(Bytes::from_owner(map))
}

/// The folder that a model is in, and the files in it that have been mapped.
struct Folder {
    path: PathBuf,
    maps: RefCell<HashMap<PathBuf, Bytes>>,
}

impl Folder {
    fn of(model: &Path) -> Folder {
        let path = match model.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        Folder {
            path,
            maps: RefCell::new(HashMap::new()),
        }
    }

    fn file(&self, location: &str) -> Result<Bytes, String> {
        let inside = |component: Component| matches!(component, Component::Normal(_) | Component::CurDir);
        let outside = || "a model's data must lie in the model's folder".to_owned();
        if !Path::new(location).components().all(inside) {
            return Err(outside());
        }
        let path = self.path.join(location);
        if let Some(bytes) = self.maps.borrow().get(&path) {
            return Ok(bytes.clone());
        }
        let say = |error: std::io::Error| format!("cannot open {}: {error}", path.display());
        let (folder, resolved) = (
            fs::canonicalize(&self.path).map_err(say)?,
            fs::canonicalize(&path).map_err(say)?,
        );
        if !resolved.starts_with(folder) {
            return Err(format!("it is a link to {}, and {}", resolved.display(), outside()));
        }
        let bytes = map(&resolved).map_err(|error| format!("cannot open {}: {error:#}", path.display()))?;
        self.maps.borrow_mut().insert(path, bytes.clone());
        Ok(bytes)
    }
}

impl ExternalData for Folder {
    fn bytes(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Bytes, String> {
        let file = self.file(location)?;
        let total = file.len() as u64;
        let end = length.map_or(Some(total), |length| offset.checked_add(length));
        let range = end.filter(|&end| offset <= end && end <= total).and_then(|end| {
            let (start, end) = (usize::try_from(offset).ok()?, usize::try_from(end).ok()?);
            Some(start..end)
        });
        range.map(|range| file.slice(range)).ok_or_else(|| {
            let length = length.unwrap_or(0);
            format!("the file has {total} bytes; the tensor is said to take {length} from {offset} on")
        })
    }
}

#[cfg(test)]
mod tests {
    use lsqc_passes::ir::Tensor;

    use super::*;
    use crate::failure::render;

    fn model() -> Model {
        let text = "g (float[2] x) => (y) <float[700] w = normal(seed = 1), int64[300] v = fill(7), float s = {2}> { y = A (x, w, v, s) }";
        text::parse(text).unwrap()
    }

    /// The model in `folder`, with its two large tensors in `name`.
    fn external(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join("model.onnx");
        let options = WriteOptions {
            max_bytes: 1000,
            external_file: name.to_owned(),
            ..WriteOptions::default()
        };
        let mut staged = Staged::new();
        stage_with(&mut staged, &path, &model(), &options).unwrap();
        staged.commit().unwrap();
        path
    }

    fn refusal(path: &Path) -> String {
        let folder = path.parent().unwrap().display().to_string();
        render(&read(path).unwrap_err()).replace(&folder, "DIR")
    }

    fn constant(model: &Model, name: &str) -> Tensor {
        model.graph[model.graph.find(name).unwrap()].constant().unwrap().clone()
    }

    #[test]
    fn whole_files_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let mut staged = Staged::new();
        let files = stage(&mut staged, &path, &model(), OwnOps::Refuse).unwrap();
        staged.commit().unwrap();
        assert_eq!(files, [(path.clone(), fs::read(&path).unwrap().into())]);
        let again = read(&path).unwrap();
        assert_eq!(
            (constant(&again.model, "w"), again.warnings),
            (constant(&model(), "w"), vec![])
        );
    }

    #[test]
    fn external_data_comes_back_and_can_be_overwritten_while_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = external(folder.path(), "model.onnx.data");
        assert_eq!(
            fs::metadata(folder.path().join("model.onnx.data")).unwrap().len(),
            4096 + 2400
        );
        let first = read(&path).unwrap();
        external(folder.path(), "model.onnx.data");
        for name in ["w", "v", "s"] {
            assert_eq!(constant(&first.model, name), constant(&model(), name));
        }
    }

    #[test]
    fn text_is_read_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnxtxt");
        fs::write(&path, text::print(&model(), &text::PrintOptions::default())).unwrap();
        assert_eq!(read(&path).unwrap().model, model());
        fs::write(&path, "g (").unwrap();
        insta::assert_snapshot!(refusal(&path), @r"
        error: cannot read the model DIR/model.onnxtxt
          because: line 1, column 4: expected a value's name, found the end of the text
            | g (
            |    ^
        ");
    }

    #[test]
    fn data_outside_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = external(&inner, "weights");
        for bad in ["/weight", "../wei", "a/../x"] {
            // The same length, so that the message stays well formed.
            let model = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&model).into_owned();
            assert!(text.contains("weights"));
            let renamed: Vec<u8> = replace(&model, b"weights", format!("{bad:x<7}").as_bytes());
            fs::write(inner.join("bad.onnx"), renamed).unwrap();
            let text = refusal(&inner.join("bad.onnx"));
            assert!(
                text.contains("initializer 'w'") && text.contains("must lie in the model's folder"),
                "{text}"
            );
        }
        #[cfg(unix)]
        {
            fs::rename(inner.join("weights"), folder.path().join("weights")).unwrap();
            std::os::unix::fs::symlink("../weights", inner.join("weights")).unwrap();
            let text = refusal(&path);
            assert!(
                text.contains("is a link to") && text.contains("must lie in the model's folder"),
                "{text}"
            );
        }
    }

    fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let mut bytes = bytes.to_vec();
        while let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        bytes
    }

    #[test]
    fn refusals_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = external(folder.path(), "weights");
        let data = folder.path().join("weights");
        let whole = fs::read(&data).unwrap();
        fs::write(&data, &whole[..5000]).unwrap();
        insta::assert_snapshot!(refusal(&path), @r"
        error: cannot read the model DIR/model.onnx
          because: initializer 'v' lies outside the model's file, in 'weights': the file has 5000 bytes; the tensor is said to take 2400 from 4096 on
        help: put the model's data files beside it, as they were when it was exported
        ");
        fs::remove_file(&data).unwrap();
        insta::assert_snapshot!(refusal(&path), @r"
        error: cannot read the model DIR/model.onnx
          because: initializer 'w' lies outside the model's file, in 'weights': cannot open DIR/weights: No such file or directory (os error 2)
        help: put the model's data files beside it, as they were when it was exported
        ");
        fs::create_dir(&data).unwrap();
        insta::assert_snapshot!(refusal(&path), @r"
        error: cannot read the model DIR/model.onnx
          because: initializer 'w' lies outside the model's file, in 'weights': cannot open DIR/weights: this is a folder
        help: put the model's data files beside it, as they were when it was exported
        ");
        let model = fs::read(&path).unwrap();
        fs::write(&path, &model[..model.len() - 30]).unwrap();
        insta::assert_snapshot!(refusal(&path), @r"
        error: cannot read the model DIR/model.onnx
          because: the model is truncated: its field 'graph' goes on for 26 bytes after the end of the file
        help: copy, download or export the file again
        ");
        fs::write(&path, "").unwrap();
        insta::assert_snapshot!(refusal(&path), @r"
        error: cannot read the model DIR/model.onnx
          because: the file is empty
        help: copy, download or export the file again
        ");
        insta::assert_snapshot!(refusal(&folder.path().join("missing.onnx")), @r"
        error: cannot read the model DIR/missing.onnx
          because: No such file or directory (os error 2)
        ");
    }
}
