//! Many addresses in little memory: all of them in one text, and a table of places in it. A hundred thousand take
//! some 4 MiB, and one is found by one look, or a few. Addresses are only ever added.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

/// A set of lookup keys.
#[derive(Clone, Default)]
pub struct AddressSet {
    text: String,
    // Where each address ends in `text`; it begins where the one before it ends.
    ends: Vec<u32>,
    // Open addressing: the place of an address plus one, 0 where there is none; at least a third is free.
    table: Vec<u32>,
    hasher: RandomState,
}

impl AddressSet {
    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// True if this one is among them.
    pub fn contains(&self, address: &str) -> bool {
        !self.table.is_empty() && self.slot(address).1
    }

    /// Adds one; false if it is there already.
    pub fn insert(&mut self, address: &str) -> bool {
        if self.table.len() < (self.ends.len() + 1) * 3 / 2 {
            self.grow();
        }
        let (slot, found) = self.slot(address);
        if found {
            return false;
        }
        self.text.push_str(address);
        let end = u32::try_from(self.text.len()).expect("a directory is bounded far below 4 GiB");
        self.ends.push(end);
        self.table[slot] = u32::try_from(self.ends.len()).expect("there are not more addresses than octets");
        true
    }

    /// Each, in the order they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.ends.len()).map(|place| self.at(place))
    }

    /// The same addresses in order, so that equal sets are written alike.
    #[must_use]
    pub fn sorted(&self) -> Self {
        if self.iter().is_sorted() {
            return self.clone();
        }
        let mut all: Vec<&str> = self.iter().collect();
        all.sort_unstable();
        all.into_iter().collect()
    }

    /// Leaves out all that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        if !self.iter().all(&keep) {
            *self = self.iter().filter(|address| keep(address)).collect();
        }
    }

    fn at(&self, place: usize) -> &str {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.text[start..self.ends[place] as usize]
    }

    /// Where this address stands in the table, or would; and whether it does. The table is not empty.
    fn slot(&self, address: &str) -> (usize, bool) {
        let mask = self.table.len() - 1;
        let hash = self.hasher.hash_one(address);
        let mut slot = usize::try_from(hash & mask as u64).unwrap_or_default();
        loop {
            match self.table[slot] {
                0 => return (slot, false),
                place if self.at(place as usize - 1) == address => return (slot, true),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn grow(&mut self) {
        self.table = vec![0; (self.table.len() * 2).max(8)];
        for place in 0..self.ends.len() {
            let (slot, _) = self.slot(self.at(place));
            self.table[slot] = u32::try_from(place + 1).expect("there are not more addresses than octets");
        }
    }
}

impl PartialEq for AddressSet {
    fn eq(&self, other: &Self) -> bool {
        let alike = || self.text == other.text && self.ends == other.ends;
        self.len() == other.len() && (alike() || self.iter().all(|address| other.contains(address)))
    }
}

impl Eq for AddressSet {}

impl fmt::Debug for AddressSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<T: AsRef<str>> FromIterator<T> for AddressSet {
    fn from_iter<I: IntoIterator<Item = T>>(addresses: I) -> Self {
        let mut set = Self::default();
        set.extend(addresses);
        set
    }
}

impl<T: AsRef<str>> Extend<T> for AddressSet {
    fn extend<I: IntoIterator<Item = T>>(&mut self, addresses: I) {
        for address in addresses {
            self.insert(address.as_ref());
        }
    }
}

impl<T: AsRef<str>, const N: usize> From<[T; N]> for AddressSet {
    fn from(addresses: [T; N]) -> Self {
        addresses.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hundred_thousand_take_some_megabytes() {
        let set: AddressSet = (0..100_000).map(|n| format!("customer.{n}@example.org")).collect();
        assert!(set.contains("customer.99999@example.org") && !set.contains("customer.100000@example.org"));
        let octets = set.text.capacity() + (set.ends.capacity() + set.table.capacity()) * 4;
        assert!(octets < 8 * 1024 * 1024, "{octets}");
    }

    proptest! {
        #[test]
        fn behaves_like_any_set(words in proptest::collection::vec("[a-c]{0,3}", 0..60), asked in "[a-c]{0,3}") {
            let set: AddressSet = words.iter().collect();
            let model: BTreeSet<&str> = words.iter().map(String::as_str).collect();
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.contains(&asked), model.contains(asked.as_str()));
            let sorted = set.sorted();
            prop_assert_eq!(sorted.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(&sorted, &set);
            let mut kept = set.clone();
            kept.retain(|word| word.starts_with('a'));
            prop_assert!(kept.iter().all(|word| word.starts_with('a') && set.contains(word)));
            prop_assert_eq!(kept == set, model.iter().all(|word| word.starts_with('a')));
        }
    }
}
