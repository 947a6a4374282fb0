//! Sorting of short lists. The sorts of the standard library, and those inside of `collect` to a `BTreeMap` or a `BTreeSet`,
//! are compiled once for each type and each order, which takes 4 kB every time. These functions share one of them.

use std::cmp::Ordering;

/// Sorts by an order. Equal items keep their order.
pub(crate) fn sort_by<T>(items: &mut [T], order: impl Fn(&T, &T) -> Ordering) {
    for (a, b) in swaps(items.len(), &|a, b| order(&items[a], &items[b])) {
        items.swap(a, b);
    }
}

pub(crate) fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, T::cmp);
}

/// The items in ascending order, each once.
pub(crate) fn distinct<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    sort(&mut items);
    items.dedup();
    items
}

/// The swaps that sort a list of this length. `order` compares the items at two places.
fn swaps(length: usize, order: &dyn Fn(usize, usize) -> Ordering) -> Vec<(usize, usize)> {
    let mut sources: Vec<usize> = (0..length).collect();
    sources.sort_unstable_by(|a, b| order(*a, *b).then(a.cmp(b)));
    let mut swaps = Vec::new();
    // Each round fills the places of one cycle: each place gets the item of its source, and the last place the item that
    // stood at the beginning.
    for start in 0..length {
        let mut place = start;
        while sources[place] != start {
            let source = sources[place];
            swaps.push((place, source));
            sources[place] = place;
            place = source;
        }
        sources[place] = place;
    }
    swaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_of_a_list_is_sorted_and_equal_items_keep_their_order() {
        for length in 0..=6_usize {
            for code in 0..length.pow(length as u32) {
                // The digits of the code are the keys: each list of keys below the length.
                let keys = (0..length).map(|place| code / length.pow(place as u32) % length);
                let mut items: Vec<(usize, usize)> =
                    keys.enumerate().map(|(place, key)| (key, place)).collect();
                let mut expected = items.clone();
                expected.sort_by_key(|(key, _)| *key);
                sort_by(&mut items, |a, b| a.0.cmp(&b.0));
                assert_eq!(items, expected);
            }
        }
    }

    #[test]
    fn a_long_list_is_sorted() {
        let items: Vec<u32> = (0..10_000).map(|n: u32| n.wrapping_mul(2_654_435_761) % 1000).collect();
        assert_eq!(distinct(items), (0..1000).collect::<Vec<u32>>());
    }
}
