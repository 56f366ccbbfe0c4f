//! This home itself, by what its status says.

use serde_json::Value;

use super::{Facts, Findings};

/// Who the findings are of.
pub(super) const HERE: &str = "this home";
/// The troubles of `status` up to this rank hurt now.
const HURTS_RANK_MAX: u64 = 3;

pub(super) fn look(all: &mut Findings, facts: &Facts) {
    let status = &facts.status;
    let troubles = status["troubles"].as_array().map_or(&[][..], Vec::as_slice);
    for trouble in troubles {
        let (what, remedy) = (text(trouble, "what"), text(trouble, "remedy"));
        if trouble["rank"].as_u64().is_some_and(|rank| rank <= HURTS_RANK_MAX) {
            all.bad(HERE, "status", what, remedy);
        } else {
            all.unsure(HERE, "status", what, remedy);
        }
    }
    if troubles.is_empty() {
        all.good(HERE, "status", "nothing is wrong with its disk, its databases, its queue, its certificate");
    }
    if facts.edges.is_empty() {
        all.bad(
            HERE,
            "edges",
            "it has no edge: no mail comes from the world",
            "pair it with one: gatepost-home pair CODE",
        );
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}
