//! Large answers as gzip, for those who take it: a list of thousands of pods shrinks to a tenth.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Response, header};

/// Answers of fewer bytes stay as they are. upstream: 128 KiB.
const LEAST: usize = 128 * 1024;

/// The answer, compressed where that is asked for by `Accept-Encoding` and worth it.
pub(crate) fn compressed(accept_encoding: &str, mut response: Response<Bytes>) -> Response<Bytes> {
    if response.body().len() <= LEAST || !takes_gzip(accept_encoding) {
        return response;
    }
    // upstream: the quickest level.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let written = encoder.write_all(response.body());
    let Ok(bytes) = written.and_then(|()| encoder.finish()) else {
        return response;
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.remove(header::CONTENT_LENGTH);
    response.map(|_| bytes.into())
}

fn takes_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts
            .next()
            .is_some_and(|name| matches!(name, "gzip" | "*"));
        let refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        is_gzip && !refused
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn check(accept_encoding: &str, size: usize, expected: bool) {
        let body = Bytes::from("a".repeat(size));
        let response = compressed(accept_encoding, Response::new(body.clone()));
        let encoding = response.headers().get(header::CONTENT_ENCODING).cloned();
        assert_eq!(encoding.is_some(), expected, "{accept_encoding} {size}");
        let mut text = Vec::new();
        if expected {
            let mut decoder = flate2::read::GzDecoder::new(response.body().as_ref());
            decoder.read_to_end(&mut text).expect("gzip");
        } else {
            text = response.body().to_vec();
        }
        assert_eq!(text, body);
    }

    #[test]
    fn large_answers_are_compressed_for_those_who_take_it() {
        check("gzip", LEAST + 1, true);
        check("deflate, gzip;q=0.8", LEAST + 1, true);
        check("gzip", LEAST, false);
        check("", LEAST + 1, false);
        check("identity", LEAST + 1, false);
        check("gzip;q=0", LEAST + 1, false);
    }
}
