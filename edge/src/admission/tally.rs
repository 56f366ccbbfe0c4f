//! How often clients were kept out or kept waiting, and by what: numbers for those who watch, without an address.

use gatepost_runtime::metrics::{Counter, Kind, Metric};

/// What keeps a client out, for now or for good, or lets it wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A ban.
    Ban,
    /// An access list.
    Access,
    /// DNS lists.
    List,
    /// It says our own name in EHLO.
    Name,
    /// More came within a minute than may.
    Rate,
    /// It has not come back yet.
    Greylist,
    /// It was greeted late.
    Greeting,
    /// It guesses recipients, and was answered late.
    Tarpit,
}

impl Hold {
    const ALL: [Self; 8] =
        [Self::Ban, Self::Access, Self::List, Self::Name, Self::Rate, Self::Greylist, Self::Greeting, Self::Tarpit];

    /// In a word.
    fn word(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Access => "access",
            Self::List => "list",
            Self::Name => "name",
            Self::Rate => "rate",
            Self::Greylist => "greylist",
            Self::Greeting => "greeting",
            Self::Tarpit => "tarpit",
        }
    }
}

/// Since the program started.
#[derive(Debug, Default)]
pub struct Tally([Counter; Hold::ALL.len()]);

impl Tally {
    /// Once more.
    pub fn count(&self, hold: Hold) {
        for (one, counter) in Hold::ALL.iter().zip(&self.0) {
            if *one == hold {
                counter.one();
            }
        }
    }

    /// For the page of metrics.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    pub fn metric(&self) -> Metric {
        let values = Hold::ALL.iter().zip(&self.0).map(|(hold, counter)| (hold.word(), counter.now() as f64));
        let words = "Clients that were turned away, put off or kept waiting before they brought a message.";
        Metric::labelled(Kind::Counter, "gatepost_edge_held_total", words, "by", values)
    }
}

#[cfg(test)]
mod tests {
    use gatepost_runtime::metrics::text;

    use super::*;

    #[test]
    fn each_is_counted_by_its_own_word() {
        let tally = Tally::default();
        for (times, hold) in Hold::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| tally.count(hold));
        }
        let page = text(vec![tally.metric()]);
        for (times, hold) in Hold::ALL.into_iter().enumerate() {
            let line = format!("gatepost_edge_held_total{{by=\"{}\"}} {times}\n", hold.word());
            assert!(page.contains(&line), "{line} in {page}");
        }
    }
}
