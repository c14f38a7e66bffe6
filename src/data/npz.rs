//! npz files, numpy's archives: a zip of `.npy` arrays, stored or deflated; and single `.npy` files.
//!
//! Read are booleans, integers of 8 to 64 bits and floats of 16 to 64, of either byte order, row-major. Refused, each with its cure:
//! column-major arrays, pickled objects, other types, arrays whose bytes do not fit their shape.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use anyhow::{Context, Result, anyhow, bail};
use lsqc_passes::ir::{DType, Tensor};

/// The first bytes of a zip archive.
pub const ZIP_MAGIC: [u8; 2] = *b"PK";

/// The first bytes of a `.npy` file.
pub const NPY_MAGIC: &[u8] = b"\x93NUMPY";

/// No npy header is near this long; a longer one is not a header.
const MAX_HEADER: usize = 1 << 16;

/// Reads every array of an archive from its bytes, by name.
///
/// # Errors
/// A message about the content that names the array; the caller adds the file's name.
pub fn read(file: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(file)).context("it is not a whole npz archive")?;
    let mut arrays = BTreeMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).context("the archive is damaged")?;
        let Some(name) = entry
            .name()
            .context("the archive is damaged")?
            .strip_suffix(".npy")
            .map(str::to_owned)
        else {
            continue;
        };
        let array = read_npy(entry).with_context(|| format!("array \"{name}\""))?;
        arrays.insert(name, array);
    }
    Ok(arrays)
}

/// Reads one `.npy` stream.
///
/// # Errors
/// A message about the content; the caller adds the file's name.
pub fn read_npy(mut stream: impl Read) -> Result<Tensor> {
    let mut start = [0u8; 8];
    stream.read_exact(&mut start).context("it ends inside its header")?;
    let (magic, version) = start.split_at(NPY_MAGIC.len());
    if magic != NPY_MAGIC {
        bail!("it is not an npy array");
    }
    let wide_length = version.first().is_some_and(|&major| major >= 2);
    let mut length = [0u8; 4];
    let length_bytes = if wide_length { &mut length[..] } else { &mut length[..2] };
    stream.read_exact(length_bytes).context("it ends inside its header")?;
    let length = usize::try_from(u32::from_le_bytes(length))?;
    if length > MAX_HEADER {
        bail!("its header is {length} bytes long, more than any array needs");
    }
    let mut header = vec![0u8; length];
    stream.read_exact(&mut header).context("it ends inside its header")?;
    let header = Header::parse(&String::from_utf8_lossy(&header))?;

    let shape = &header.shape;
    let needed = shape.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent));
    let Some(needed) = needed.and_then(|count| header.dtype.byte_len(count)) else {
        bail!("its header says shape {shape:?}, more than fits in memory");
    };
    // The vector grows with what really arrives, whatever the header promises; one byte more shows whether there is more.
    let mut bytes = Vec::new();
    stream
        .take((needed as u64).saturating_add(1))
        .read_to_end(&mut bytes)
        .context("it cannot be unpacked")?;
    if bytes.len() != needed {
        let found = if bytes.len() > needed {
            "more".to_owned()
        } else {
            bytes.len().to_string()
        };
        bail!(
            "sizes disagree: its header says {shape:?} elements of {}, {needed} bytes, but there are {found}",
            header.dtype
        );
    }
    let width = header.dtype.byte_len(1).unwrap_or(1);
    if header.order == Order::Big && width > 1 {
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    Ok(Tensor::from_bytes(header.dtype, shape, bytes.into())?)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    dtype: DType,
    order: Order,
    shape: Vec<usize>,
}

impl Header {
    /// Parses a Python literal such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
    fn parse(text: &str) -> Result<Header> {
        let value = |key: &str| {
            let (_, rest) = text
                .split_once(&format!("'{key}'"))
                .ok_or_else(|| anyhow!("its header has no '{key}': {text}"))?;
            rest.trim_start()
                .strip_prefix(':')
                .map(str::trim_start)
                .ok_or_else(|| anyhow!("its header is not one: {text}"))
        };
        let descr = value("descr")?;
        let Some((descr, _)) = descr.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) else {
            bail!("it has a structured type; save one plain array per input");
        };
        let (order, dtype) = element_type(descr)?;
        let shape = value("shape")?;
        let Some((extents, _)) = shape.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
            bail!("its header has no shape: {text}");
        };
        let shape = extents
            .split(',')
            .map(str::trim)
            .filter(|extent| !extent.is_empty())
            .map(|extent| {
                extent
                    .parse::<usize>()
                    .with_context(|| format!("its header has no valid shape: ({extents})"))
            })
            .collect::<Result<Vec<usize>>>()?;
        // In one dimension both orders are the same.
        if value("fortran_order")?.starts_with("True") && shape.len() > 1 {
            bail!("it is stored column-major (Fortran order); save numpy.ascontiguousarray of it");
        }
        Ok(Header { dtype, order, shape })
    }
}

fn element_type(descr: &str) -> Result<(Order, DType)> {
    let order = if descr.starts_with('>') { Order::Big } else { Order::Little };
    let dtype = match descr.trim_start_matches(['<', '>', '|', '=']) {
        "b1" => DType::Bool,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        "O" => bail!("it holds pickled Python objects; save a plain array"),
        _ => bail!("its type {descr} is not read; save numbers of 8 to 64 bits"),
    };
    Ok((order, dtype))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let mut file = NPY_MAGIC.to_vec();
        file.extend([1, 0]);
        file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(data);
        file
    }

    fn read_one(descr: &str, shape: &str, data: &[u8]) -> Tensor {
        read_npy(&npy(descr, "False", shape, data)[..]).unwrap()
    }

    fn message(file: &[u8]) -> String {
        format!("{:#}", read_npy(file).unwrap_err())
    }

    #[test]
    fn types() {
        assert_eq!(
            read_one("<f4", "(2,)", &[0, 0, 128, 63, 0, 0, 0, 192]).to_f64().unwrap(),
            [1.0, -2.0]
        );
        assert_eq!(read_one(">i2", "(1, 2)", &[1, 0, 255, 255]).to_i64().unwrap(), [256, -1]);
        assert_eq!(read_one("|u1", "(2, 1)", &[3, 4]).shape(), [2, 1]);
        assert_eq!(read_one("|b1", "()", &[1]).dtype(), DType::Bool);
        assert_eq!(read_one("<f2", "(1,)", &[0, 0x3c]).to_f64().unwrap(), [1.0]);
        assert_eq!(read_one("<i8", "(1,)", &(-5i64).to_le_bytes()).to_i64().unwrap(), [-5]);
        assert_eq!(read_one("<f8", "(1,)", &0.25f64.to_le_bytes()).to_f64().unwrap(), [0.25]);
    }

    #[test]
    fn refusals() {
        assert!(message(b"nothing of the kind").contains("not an npy array"));
        assert!(message(&npy("<f4", "True", "(1, 1)", &[0; 4])).contains("ascontiguousarray"));
        assert!(message(&npy("|O", "False", "(1,)", &[0; 4])).contains("pickled"));
        assert!(message(&npy("<c8", "False", "(1,)", &[0; 8])).contains("<c8"));
        assert!(message(&npy("<f4", "False", "(2,)", &[0; 7])).contains("sizes disagree"));
        assert!(message(&npy("<f4", "False", "(1,)", &[0; 7])).contains("there are more"));
        assert!(message(&npy("<f4", "False", "(9999999999999, 9999999999999)", &[])).contains("more than fits"));
        assert!(message(&npy("<f4", "False", "(9999999999999,)", &[])).contains("sizes disagree"));
        assert!(message(&npy("<f4", "False", "(-1,)", &[])).contains("no valid shape"));
        assert!(message(&npy("<f4", "False", "(2,)", &[])[..20]).contains("inside its header"));
    }

    #[test]
    fn archive_stored_and_deflated() {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file("image.npy", options.compression_method(zip::CompressionMethod::Stored))
            .unwrap();
        zip.write_all(&npy("|u1", "False", "(2, 2)", &[1, 2, 3, 4])).unwrap();
        zip.start_file("label.npy", options.compression_method(zip::CompressionMethod::Deflated))
            .unwrap();
        zip.write_all(&npy("<i8", "False", "(2,)", &[0; 16])).unwrap();
        let file = zip.finish().unwrap().into_inner();
        let arrays = read(&file).unwrap();
        assert_eq!(arrays.keys().collect::<Vec<_>>(), ["image", "label"]);
        assert!(format!("{:#}", read(&file[..file.len() / 2]).unwrap_err()).contains("not a whole npz"));
    }
}
