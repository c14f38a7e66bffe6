//! Elements of tensors, each way.
//!
//! Numbers are printed with the fewest digits that give them back. Types of 2, 4 and 6 bits lie in their bytes as one stream, low bits
//! first. Bits after the last element are not kept.

use std::fmt::Write as _;

use bytes::Bytes;
use half::{bf16, f16};

use super::print::quoted;
use crate::ir::{DType, Tensor};

/// An element, as spelled.
pub(super) enum Spelled<'a> {
    /// A number, or `inf`, `nan` and so on.
    Number(&'a str),
    /// `nan(0x…)`.
    NanBits(u64),
    /// A string.
    Text(Vec<u8>),
}

/// The elements that `texts` of `dtype` are, packed as in a tensor; strings apart.
#[derive(Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    strings: Vec<Bytes>,
    /// How often something was added.
    count: usize,
    /// Bits of a byte that is not yet full, and how many.
    partial: (u32, usize),
}

impl Packed {
    /// Adds an element.
    ///
    /// # Errors
    /// Why this is no element of the type.
    pub(super) fn push(&mut self, dtype: DType, element: Spelled<'_>) -> Result<(), String> {
        use DType as D;
        self.count += 1;
        let (text, bits) = match element {
            Spelled::Text(text) if dtype == D::String => {
                self.strings.push(text.into());
                return Ok(());
            }
            Spelled::Number(text) if dtype != D::String => (text, None),
            Spelled::NanBits(bits) if dtype.is_float() || dtype == D::C64 || dtype == D::C128 => ("nan", Some(bits)),
            _ => return Err(format!("this is no element of type {dtype}")),
        };
        let wrong = || format!("'{text}' is no element of type {dtype}");
        macro_rules! push {
            ($parse:expr) => {{
                let value = $parse.ok_or_else(wrong)?;
                self.bytes.extend_from_slice(&value.to_le_bytes());
            }};
        }
        let code = || code(text).ok_or_else(wrong);
        let single = || text.parse::<f32>().ok();
        #[allow(clippy::cast_possible_truncation)]
        match dtype {
            D::F32 | D::C64 => push!(bits.map_or_else(single, |bits| Some(f32::from_bits(bits as u32)))),
            D::F64 | D::C128 => push!(bits.map_or_else(|| text.parse::<f64>().ok(), |bits| Some(f64::from_bits(bits)))),
            D::F16 => push!(bits.map_or_else(|| single().map(f16::from_f32), |bits| Some(f16::from_bits(bits as u16)))),
            D::BF16 => push!(bits.map_or_else(|| single().map(bf16::from_f32), |bits| Some(bf16::from_bits(bits as u16)))),
            D::I8 => push!(text.parse::<i8>().ok()),
            D::I16 => push!(text.parse::<i16>().ok()),
            D::I32 => push!(text.parse::<i32>().ok()),
            D::I64 => push!(text.parse::<i64>().ok()),
            D::U8 => push!(text.parse::<u8>().ok()),
            D::Bool => push!(match text {
                "true" => Some(1),
                "false" => Some(0),
                _ => text.parse::<u8>().ok(),
            }),
            D::U16 => push!(text.parse::<u16>().ok()),
            D::U32 => push!(text.parse::<u32>().ok()),
            D::U64 => push!(text.parse::<u64>().ok()),
            D::U4 | D::U2 | D::I4 | D::I2 => {
                let value = text.parse::<i32>().map_err(|_| wrong())?;
                let width = dtype.bits().unwrap_or(8);
                let low = if matches!(dtype, D::I4 | D::I2) {
                    -(1 << (width - 1))
                } else {
                    0
                };
                if !(low..low + (1 << width)).contains(&value) {
                    return Err(wrong());
                }
                #[allow(clippy::cast_sign_loss)]
                self.push_bits(value as u32 & ((1 << width) - 1), width);
            }
            D::F4E2M1 | D::F6E2M3 | D::F6E3M2 => {
                let width = dtype.bits().unwrap_or(8);
                let code = code()?;
                if u32::from(code) >> width != 0 {
                    return Err(wrong());
                }
                self.push_bits(code.into(), width);
            }
            D::F8E4M3FN | D::F8E4M3FNUZ | D::F8E5M2 | D::F8E5M2FNUZ | D::F8E8M0 => self.bytes.push(code()?),
            D::String => return Err(wrong()),
        }
        Ok(())
    }

    fn push_bits(&mut self, bits: u32, width: usize) {
        let (partial, filled) = &mut self.partial;
        *partial |= bits << *filled;
        *filled += width;
        while *filled >= 8 {
            self.bytes.push(partial.to_le_bytes()[0]);
            *partial >>= 8;
            *filled -= 8;
        }
    }

    /// The tensor of the elements.
    ///
    /// # Errors
    /// If there are not as many as the shape says.
    pub(super) fn finish(mut self, dtype: DType, shape: &[usize]) -> Result<Tensor, String> {
        let per_element = if matches!(dtype, DType::C64 | DType::C128) { 2 } else { 1 };
        let needed = shape
            .iter()
            .try_fold(per_element, |count: usize, &extent| count.checked_mul(extent));
        if needed != Some(self.count) {
            let needed = needed.map_or("too many".to_owned(), |needed| needed.to_string());
            return Err(format!(
                "a {dtype} tensor of shape {shape:?} takes {needed} entries, but there are {}",
                self.count
            ));
        }
        if self.partial.1 > 0 {
            self.push_bits(0, 8 - self.partial.1);
        }
        let tensor = match dtype {
            DType::String => Tensor::from_strings(shape, self.strings),
            _ => Tensor::from_bytes(dtype, shape, self.bytes.into()),
        };
        tensor.map_err(|error| error.to_string())
    }
}

fn code(text: &str) -> Option<u8> {
    match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Writes `{1, 2, 3}`, or `{1, 2, …}` with `shown` elements where there are more than `most`.
pub(super) fn print(out: &mut String, tensor: &Tensor, most: usize) {
    const SHOWN: usize = 4;
    let entries = entries(tensor);
    let shown = if entries > most { SHOWN.min(most) } else { entries };
    out.push('{');
    for index in 0..shown {
        if index > 0 {
            out.push_str(", ");
        }
        print_entry(out, tensor, index);
    }
    if shown < entries {
        out.push_str(if shown > 0 { ", …" } else { "…" });
    }
    out.push('}');
}

/// How many numbers or strings spell the tensor: two to a complex element.
fn entries(tensor: &Tensor) -> usize {
    match tensor.dtype() {
        DType::C64 | DType::C128 => tensor.len() * 2,
        _ => tensor.len(),
    }
}

fn print_entry(out: &mut String, tensor: &Tensor, index: usize) {
    use DType as D;
    fn at<const N: usize>(bytes: &[u8], index: usize) -> [u8; N] {
        bytes.as_chunks::<N>().0.get(index).copied().unwrap_or([0; N])
    }
    let bytes = tensor.bytes();
    let dtype = tensor.dtype();
    // Writing to a string does not fail.
    let _ = match dtype {
        D::F32 | D::C64 => return print_float(out, f32::from_le_bytes(at(bytes, index))),
        D::F64 | D::C128 => {
            let value = f64::from_le_bytes(at(bytes, index));
            match value.is_nan() && value.to_bits() != f64::NAN.to_bits() {
                true => write!(out, "nan({:#x})", value.to_bits()),
                false if value.is_nan() => write!(out, "nan"),
                false => write!(out, "{value:?}"),
            }
        }
        D::F16 => {
            let value = f16::from_le_bytes(at(bytes, index));
            return print_half(out, value.is_nan(), value.to_bits(), f16::NAN.to_bits(), value.to_f32());
        }
        D::BF16 => {
            let value = bf16::from_le_bytes(at(bytes, index));
            return print_half(out, value.is_nan(), value.to_bits(), bf16::NAN.to_bits(), value.to_f32());
        }
        D::I8 => write!(out, "{}", i8::from_le_bytes(at(bytes, index))),
        D::I16 => write!(out, "{}", i16::from_le_bytes(at(bytes, index))),
        D::I32 => write!(out, "{}", i32::from_le_bytes(at(bytes, index))),
        D::I64 => write!(out, "{}", i64::from_le_bytes(at(bytes, index))),
        D::U8 | D::Bool => write!(out, "{}", u8::from_le_bytes(at(bytes, index))),
        D::U16 => write!(out, "{}", u16::from_le_bytes(at(bytes, index))),
        D::U32 => write!(out, "{}", u32::from_le_bytes(at(bytes, index))),
        D::U64 => write!(out, "{}", u64::from_le_bytes(at(bytes, index))),
        D::U4 | D::U2 => write!(out, "{}", bits(bytes, index, dtype)),
        D::I4 | D::I2 => {
            let unused = 32 - dtype.bits().unwrap_or(8);
            write!(out, "{}", (bits(bytes, index, dtype) << unused).cast_signed() >> unused)
        }
        D::F4E2M1 | D::F6E2M3 | D::F6E3M2 | D::F8E4M3FN | D::F8E4M3FNUZ | D::F8E5M2 | D::F8E5M2FNUZ | D::F8E8M0 => {
            write!(out, "{:#04x}", bits(bytes, index, dtype))
        }
        D::String => {
            out.push_str(&quoted(tensor.strings().get(index).map_or(&[], |text| text)));
            Ok(())
        }
    };
}

/// Writes a single so that it reads as a float.
pub(super) fn print_float(out: &mut String, value: f32) {
    let _ = match value.is_nan() && value.to_bits() != f32::NAN.to_bits() {
        true => write!(out, "nan({:#x})", value.to_bits()),
        false if value.is_nan() => write!(out, "nan"),
        false => write!(out, "{value:?}"),
    };
}

fn print_half(out: &mut String, is_nan: bool, bits: u16, nan: u16, value: f32) {
    if is_nan && bits != nan {
        let _ = write!(out, "nan({bits:#x})");
    } else {
        print_float(out, if is_nan { f32::NAN } else { value });
    }
}

/// Element `index` of a stream of elements of at most 8 bits.
fn bits(bytes: &[u8], index: usize, dtype: DType) -> u32 {
    let width = dtype.bits().unwrap_or(8);
    let start = index * width;
    let byte = |place: usize| bytes.get(place).copied().map_or(0, u32::from);
    let window = byte(start / 8) | byte(start / 8 + 1) << 8;
    window >> (start % 8) & ((1 << width) - 1)
}
