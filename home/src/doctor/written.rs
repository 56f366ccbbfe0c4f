//! Findings for people: a line each, what is well in short.

use std::fmt::Write as _;

use super::{Finding, Mark};

/// All of them, grouped by what they are of, and a last line that counts.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut groups: Vec<&str> = Vec::new();
    for finding in findings {
        if !groups.contains(&finding.of.as_str()) {
            groups.push(&finding.of);
        }
    }
    for of in groups {
        text.push_str(of);
        text.push('\n');
        for finding in findings.iter().filter(|finding| finding.of == of) {
            let mark = match finding.mark {
                Mark::Good => '✓',
                Mark::Unsure => '!',
                Mark::Bad => '✗',
            };
            let _ = writeln!(text, "  {mark} {}: {}", finding.check, finding.found);
            if let Some(remedy) = &finding.remedy {
                let _ = writeln!(text, "      → {remedy}");
            }
        }
    }
    let count = |mark: Mark| findings.iter().filter(|finding| finding.mark == mark).count();
    let (bad, unsure) = (count(Mark::Bad), count(Mark::Unsure));
    let _ = match (bad, unsure) {
        (0, 0) => writeln!(text, "\nAll is well."),
        (0, unsure) => writeln!(text, "\nNothing is broken; {unsure} to look at."),
        (bad, unsure) => writeln!(text, "\n{bad} broken, {unsure} to look at."),
    };
    text
}
