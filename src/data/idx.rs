//! idx files, the format of MNIST: two zero bytes, a byte for the element type, one for the rank, the extents (u32, big-endian), then
//! the elements, big-endian, row-major. With or without gzip around it.
//!
//! Refused: another magic, a file that is shorter or longer than its extents say, extents whose product no file can hold.

use std::io::{ErrorKind, Read};

use anyhow::{Result, anyhow, bail};
use flate2::bufread::MultiGzDecoder;
use lsqc_passes::ir::{DType, Tensor};

/// Deflate cannot pack more than this many bytes into one; a header that promises more is wrong, and is refused before it costs memory.
const MAX_DEFLATE_RATIO: usize = 1032;

/// The first bytes of a gzip file.
pub const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads an idx file, compressed or not, from its bytes.
///
/// # Errors
/// A message about the content; the caller adds the file's name.
pub fn read(file: &[u8]) -> Result<Tensor> {
    if file.starts_with(&GZIP_MAGIC) {
        read_stream(MultiGzDecoder::new(file), file.len().saturating_mul(MAX_DEFLATE_RATIO))
    } else {
        read_stream(file, file.len())
    }
}

/// Reads from a stream that cannot give more than `limit` bytes.
fn read_stream(mut stream: impl Read, limit: usize) -> Result<Tensor> {
    let mut magic = [0u8; 4];
    read_header(&mut stream, &mut magic)?;
    let [0, 0, code, rank] = magic else {
        bail!("this is not an idx file: it starts with {magic:02x?}, where idx has two zero bytes, a type and a rank");
    };
    let Some(dtype) = element_type(code) else {
        bail!("this is not an idx file: there is no idx element type 0x{code:02x}");
    };
    let mut shape = Vec::with_capacity(rank.into());
    for _ in 0..rank {
        let mut extent = [0u8; 4];
        read_header(&mut stream, &mut extent)?;
        shape.push(usize::try_from(u32::from_be_bytes(extent))?);
    }
    let needed = shape
        .iter()
        .try_fold(1usize, |count, &extent| count.checked_mul(extent))
        .and_then(|count| dtype.byte_len(count));
    let Some(needed) = needed.filter(|&needed| needed <= limit) else {
        bail!(
            "its header says {shape:?} elements of {dtype}, more than a file of this size can hold; it is truncated or not an idx file"
        );
    };
    // One byte more than needed shows whether there is more. The vector grows with what really arrives.
    let mut bytes = Vec::new();
    stream.take(needed as u64 + 1).read_to_end(&mut bytes).map_err(unpacking)?;
    if bytes.len() < needed {
        bail!(
            "it is truncated: its header says {shape:?} elements of {dtype}, {needed} bytes, but there are {}",
            bytes.len()
        );
    }
    if bytes.len() > needed {
        bail!("sizes disagree: its header says {shape:?} elements of {dtype}, {needed} bytes, but there are more");
    }
    let width = dtype.byte_len(1).unwrap_or(1);
    if width > 1 {
        bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    }
    Ok(Tensor::from_bytes(dtype, &shape, bytes.into())?)
}

fn read_header(stream: &mut impl Read, bytes: &mut [u8]) -> Result<()> {
    stream.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => anyhow!("it ends inside its header; it is truncated or not an idx file"),
        _ => unpacking(error),
    })
}

fn unpacking(error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => anyhow!("it is truncated: its gzip stream ends early"),
        _ => anyhow::Error::new(error).context("it cannot be unpacked"),
    }
}

fn element_type(code: u8) -> Option<DType> {
    Some(match code {
        0x08 => DType::U8,
        0x09 => DType::I8,
        0x0b => DType::I16,
        0x0c => DType::I32,
        0x0d => DType::F32,
        0x0e => DType::F64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn idx(code: u8, shape: &[u32], data: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, code, u8::try_from(shape.len()).unwrap()];
        shape.iter().for_each(|extent| file.extend(extent.to_be_bytes()));
        file.extend(data);
        file
    }

    fn message(file: &[u8]) -> String {
        format!("{:#}", read(file).unwrap_err())
    }

    #[test]
    fn bytes() {
        let tensor = read(&idx(8, &[2, 3], &[1, 2, 3, 4, 5, 6])).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (DType::U8, &[2, 3][..]));
        assert_eq!(tensor.to_i64().unwrap(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn big_endian_elements() {
        assert_eq!(
            read(&idx(0x0b, &[2], &[0xff, 0xfe, 1, 0])).unwrap().to_i64().unwrap(),
            [-2, 256]
        );
        assert_eq!(read(&idx(0x0c, &[1], &7i32.to_be_bytes())).unwrap().to_i64().unwrap(), [7]);
        assert_eq!(
            read(&idx(0x0d, &[1], &1.5f32.to_be_bytes())).unwrap().to_f64().unwrap(),
            [1.5]
        );
        assert_eq!(
            read(&idx(0x0e, &[1], &(-2.5f64).to_be_bytes())).unwrap().to_f64().unwrap(),
            [-2.5]
        );
        assert_eq!(read(&idx(0x09, &[1], &[0xff])).unwrap().to_i64().unwrap(), [-1]);
    }

    #[test]
    fn gzip() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(&idx(8, &[1, 2], &[7, 9])).unwrap();
        let file = packer.finish().unwrap();
        assert_eq!(read(&file).unwrap().to_i64().unwrap(), [7, 9]);
        assert!(read(&file[..file.len() - 6]).is_err());
        assert!(message(&file[..12]).contains("truncated"));
    }

    #[test]
    fn refusals() {
        assert!(message(b"\x89PNG\r\n").contains("not an idx file"));
        assert!(message(b"\0\0").contains("inside its header"));
        assert!(message(&idx(0x0a, &[1], &[0])).contains("element type 0x0a"));
        assert!(message(&idx(8, &[2, 2], &[1, 2, 3])).contains("truncated"));
        assert!(message(&idx(8, &[2], &[1, 2, 3])).contains("sizes disagree"));
        assert!(message(&idx(8, &[u32::MAX, u32::MAX, u32::MAX], &[1])).contains("more than a file of this size can hold"));
    }
}
