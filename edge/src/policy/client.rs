//! What is made of a client as such, from what DNS lists say of it and what it calls itself. Pure.

use std::net::IpAddr;

use gatepost_protocol::mail::dns_list::Standing;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::verdict::Oddity;

/// From which scores on something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Its mail goes to Junk.
    pub junk_at: i32,
    /// Its mail is refused.
    pub refuse_at: i32,
}

/// What speaks against a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspicion {
    /// Why what it brings belongs into Junk.
    pub junk: Option<String>,
    /// What it hears for each recipient but postmaster (RFC 5321 §4.5.1), who can help where a list errs.
    pub refused: Option<Reply>,
}

/// Judges. Of names only our own is no one else's to give.
pub fn judge(standing: &Standing, thresholds: Thresholds, client: IpAddr, helo: (&str, Option<Oddity>)) -> Suspicion {
    if let (name, Some(Oddity::OurName)) = helo {
        let junk = Some(format!("{client}, which brought it, calls itself {name}, which is our own name"));
        return Suspicion { junk, refused: Some(Reply::our_name_taken(name)) };
    }
    by_lists(standing, thresholds, client)
}

/// Without a list that speaks against the client nothing is done, whatever the sum.
fn by_lists(standing: &Standing, thresholds: Thresholds, client: IpAddr) -> Suspicion {
    let score = standing.score();
    let Some(worst) = standing.worst().filter(|_| score >= thresholds.junk_at.min(thresholds.refuse_at)) else {
        return Suspicion::default();
    };
    let refused = || Reply::listed(&client.to_string(), &worst.list, worst.words.as_deref());
    Suspicion {
        junk: Some(format!("{} lists {client}, which brought it", worst.list)),
        refused: (score >= thresholds.refuse_at).then(refused),
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::verdict::Listed;

    use super::*;

    fn judged(weights: &[i32]) -> (bool, bool) {
        let hit = |weight: &i32| Listed { list: format!("list{weight}.example"), weight: *weight, words: None };
        let standing = Standing { hits: weights.iter().map(hit).collect() };
        let judged = judge(&standing, Thresholds { junk_at: 2, refuse_at: 4 }, [192, 0, 2, 1].into(), ("x", None));
        (judged.junk.is_some(), judged.refused.is_some())
    }

    #[test]
    fn the_score_decides() {
        for (weights, junk, refused) in [
            (&[][..], false, false),
            (&[1], false, false),
            (&[2], true, false),
            (&[1, 2], true, false),
            (&[2, 2], true, true),
            (&[5], true, true),
            (&[5, -2], true, false),
            (&[5, -4], false, false),
            (&[-3], false, false),
        ] {
            assert_eq!(judged(weights), (junk, refused), "{weights:?}");
        }
    }

    #[test]
    fn a_name_refuses_only_if_it_is_ours() {
        let judged = |oddity| {
            let thresholds = Thresholds { junk_at: 1, refuse_at: 1 };
            judge(&Standing::default(), thresholds, [192, 0, 2, 1].into(), ("mail.example.org", oddity))
        };
        for oddity in [None, Some(Oddity::NoName), Some(Oddity::Unqualified), Some(Oddity::OtherAddress)] {
            assert_eq!(judged(oddity), Suspicion::default(), "{oddity:?}");
        }
        let ours = judged(Some(Oddity::OurName));
        assert!(ours.junk.is_some_and(|why| why.contains("our own name")));
        let heard = "550 5.7.1 You call yourself mail.example.org, and that is who I am; say your own name in EHLO";
        assert_eq!(ours.refused.map(|reply| reply.to_string()).as_deref(), Some(heard));
    }

    #[test]
    fn the_worst_list_is_named_with_its_words() {
        let hit = |list: &str, weight, words: &str| Listed { list: list.into(), weight, words: Some(words.into()) };
        let standing = Standing { hits: vec![hit("a.example", 1, "a"), hit("b.example", 3, "see b.example/why")] };
        let judged = judge(&standing, Thresholds { junk_at: 1, refuse_at: 2 }, [192, 0, 2, 1].into(), ("x", None));
        assert_eq!(
            judged.refused.map(|reply| reply.to_string()).as_deref(),
            Some(
                "554 5.7.1 b.example lists your address 192.0.2.1 (see b.example/why); ask it to be taken off, or write to \
                 postmaster here"
            )
        );
        assert_eq!(judged.junk.as_deref(), Some("b.example lists 192.0.2.1, which brought it"));
    }
}
