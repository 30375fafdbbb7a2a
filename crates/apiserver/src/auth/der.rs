//! The few fields of an X.509 certificate that are needed here: subject and end of validity. Total over any bytes.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// What is read from a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) common_name: Option<String>,
    pub(crate) organizations: Vec<String>,
    pub(crate) not_after: Option<Timestamp>,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANIZATION: &[u8] = &[0x55, 0x04, 0x0a];

/// Reads a certificate; none if it is not one.
pub(crate) fn read(certificate: &[u8]) -> Option<Certificate> {
    let (_, outer, _) = element(certificate)?;
    let (SEQUENCE, mut fields, _) = element(outer)? else {
        return None;
    };
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    let after_serial = element(fields)?.2;
    let after_algorithm = element(after_serial)?.2;
    let after_issuer = element(after_algorithm)?.2;
    let (SEQUENCE, validity, after_validity) = element(after_issuer)? else {
        return None;
    };
    let (SEQUENCE, subject, _) = element(after_validity)? else {
        return None;
    };
    let (tag, not_after, _) = element(element(validity)?.2)?;
    let mut read = Certificate {
        common_name: None,
        organizations: Vec::new(),
        not_after: time(tag, not_after),
    };
    let mut rest = subject;
    while let Some((SET, set, next)) = element(rest) {
        if let Some((SEQUENCE, pair, _)) = element(set)
            && let Some((OBJECT_ID, id, value)) = element(pair)
            && let Some((_, text, _)) = element(value)
        {
            let text = String::from_utf8_lossy(text).into_owned();
            match id {
                COMMON_NAME => read.common_name = Some(text),
                ORGANIZATION => read.organizations.push(text),
                _ => {}
            }
        }
        rest = next;
    }
    Some(read)
}

/// The first element: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count > 4 {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(count)?;
        (
            digits
                .iter()
                .fold(0usize, |length, digit| (length << 8) | usize::from(*digit)),
            rest,
        )
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let full = match tag {
        // Two digits of the year: 50 and later are of the last century.
        UTC_TIME => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%S", full.strip_suffix('Z')?).ok()?;
    civil
        .to_zoned(TimeZone::UTC)
        .ok()
        .map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn admin() -> Vec<u8> {
        let pki = crate::pki::generate(&["localhost".to_owned()], Timestamp::UNIX_EPOCH)
            .expect("certificates");
        let der = CertificateDer::from_pem_slice(pki.admin.certificate.as_bytes())
            .expect("a certificate");
        der.to_vec()
    }

    #[test]
    fn a_certificate_names_its_user_groups_and_end() {
        let read = read(&admin()).expect("a certificate");
        assert_eq!(read.common_name.as_deref(), Some("admin"));
        assert_eq!(read.organizations, ["system:masters"]);
        assert_eq!(read.not_after, "1971-01-01T00:00:00Z".parse().ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(read(&bytes).is_none_or(|read| read.organizations.len() < 200));
        }

        #[test]
        fn a_cut_or_bent_certificate_does_no_harm(at in 0usize..600, byte in any::<u8>(), cut in 0usize..600) {
            let mut bytes = admin();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            prop_assert!(read(&bytes).is_none_or(|read| read.organizations.len() < 200));
        }
    }
}
