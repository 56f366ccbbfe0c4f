//! Findings for people: a line each, what is well in short.

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
            text.push_str(&format!("  {mark} {}: {}\n", finding.check, finding.found));
            if let Some(remedy) = &finding.remedy {
                text.push_str(&format!("      → {remedy}\n"));
            }
        }
    }
    let count = |mark: Mark| findings.iter().filter(|finding| finding.mark == mark).count();
    let (bad, unsure) = (count(Mark::Bad), count(Mark::Unsure));
    text.push_str(&match (bad, unsure) {
        (0, 0) => "\nAll is well.\n".to_owned(),
        (0, unsure) => format!("\nNothing is broken; {unsure} to look at.\n"),
        (bad, unsure) => format!("\n{bad} broken, {unsure} to look at.\n"),
    });
    text
}
