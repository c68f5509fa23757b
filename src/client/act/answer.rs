//! What the client is told in the server's place, as PostgreSQL would say it.

use crate::wire::backend::{self, frame};

/// Appends a NoticeResponse of severity WARNING.
pub fn put_warning(out: &mut Vec<u8>, sqlstate: &str, message: &str) {
    frame(out, b'N', |body| {
        for (code, text) in
            [(b'S', "WARNING"), (b'V', "WARNING"), (b'C', sqlstate), (b'M', message)]
        {
            body.push(code);
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
    });
}

/// Appends a RowDescription of one column of type text.
pub fn put_column(out: &mut Vec<u8>, name: &str, format: i16) {
    frame(out, b'T', |body| {
        body.extend_from_slice(&1_i16.to_be_bytes());
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(&0_u32.to_be_bytes());
        body.extend_from_slice(&0_i16.to_be_bytes());
        body.extend_from_slice(&25_u32.to_be_bytes());
        body.extend_from_slice(&(-1_i16).to_be_bytes());
        body.extend_from_slice(&(-1_i32).to_be_bytes());
        body.extend_from_slice(&format.to_be_bytes());
    });
}

/// Appends a DataRow of one column.
pub fn put_row(out: &mut Vec<u8>, value: &str) {
    frame(out, b'D', |body| {
        body.extend_from_slice(&1_i16.to_be_bytes());
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    });
}

/// Appends a ParameterDescription.
pub fn put_parameters(out: &mut Vec<u8>, types: &[u32]) {
    frame(out, b't', |body| {
        body.extend_from_slice(&(types.len() as u16).to_be_bytes());
        types.iter().for_each(|oid| body.extend_from_slice(&oid.to_be_bytes()));
    });
}

/// Appends a message without a body: ParseComplete, NoData and their like.
pub fn put_empty(out: &mut Vec<u8>, tag: u8) {
    backend::frame(out, tag, |_| {});
}
