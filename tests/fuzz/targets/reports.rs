//! Reports that strangers send about mail in a domain's name.

use gatepost_protocol::mail::report::reading::{Report, read};

/// Octets that are kept of one text, and some of a domain.
const TEXT_OCTETS_MAX: usize = 256;

/// A message as it is; and as what is attached to one, of each kind that a report may be packed as.
pub fn report(data: &[u8]) {
    kept(data);
    for media_type in
        ["text/xml", "application/zip", "application/gzip", "application/tlsrpt+json", "message/feedback-report"]
    {
        let head =
            format!("Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: {media_type}\r\n\r\n");
        kept(&[head.as_bytes(), data, b"\r\n--b--\r\n"].concat());
    }
}

/// Whatever is kept of it is bounded and printable.
fn kept(message: &[u8]) {
    match read(message) {
        Ok(Some(Report::Aggregate { report, .. })) => {
            text(&report.metadata.organisation);
            text(&report.metadata.id);
            assert!(report.rows.len() <= 5000);
            for row in &report.rows {
                text(&row.header_from);
                assert!(row.dkim_results.len() <= 16 && row.spf_results.len() <= 4 && row.reasons.len() <= 8);
                row.dkim_results.iter().for_each(|result| text(&result.domain));
                row.reasons.iter().filter_map(|reason| reason.comment.as_deref()).for_each(text);
            }
        }
        Ok(Some(Report::Failure(failure))) => {
            text(&failure.kind);
            failure.about().into_iter().for_each(text);
        }
        Ok(Some(Report::Tls(report))) => {
            // Characters, of four octets at most.
            let text = |text: &str| assert!(text.len() <= 4 * 512 && !text.contains(char::is_control), "{text:?}");
            text(&report.metadata.organisation);
            text(&report.metadata.id);
            assert!(report.policies.len() <= 32);
            for seen in &report.policies {
                assert!(seen.failures.len() <= 256 && seen.hosts.len() <= 32 && seen.text.len() <= 32);
                seen.failures.iter().for_each(|failure| text(&failure.kind));
            }
        }
        Ok(None) | Err(_) => {}
    }
}

fn text(text: &str) {
    // Lower case can be longer than what it was.
    assert!(text.len() <= 2 * TEXT_OCTETS_MAX && !text.contains(char::is_control), "{text:?}");
}
