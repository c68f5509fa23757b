//! Finds the known word that somebody who typed an unknown one probably meant.

/// The word of `known` that is nearest to `typed`, if it is near enough to be meant: at most two
/// letters off, and less than half of the word.
pub fn nearest<'word>(
    typed: &str,
    known: impl IntoIterator<Item = &'word str>,
) -> Option<&'word str> {
    let typed = typed.to_ascii_lowercase();
    // Nobody means a word by a text many times its length, and the table below stays small.
    if typed.len() > 64 {
        return None;
    }
    let scored = known.into_iter().map(|word| (distance(&typed, &word.to_ascii_lowercase()), word));
    let (steps, word) = scored.min_by_key(|(steps, _)| *steps)?;
    (steps <= 2 && steps * 2 < word.len().max(typed.len())).then_some(word)
}

/// How many letters must be added, dropped, replaced or swapped with their neighbour to make one
/// word of the other (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in from.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, b) in to.iter().enumerate() {
            let at = |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(0);
            let replace = at(&above, column) + usize::from(a != b);
            let mut best = replace.min(at(&above, column + 1) + 1).min(at(&line, column) + 1);
            let earlier = |word: &[char], index: usize| word.get(index.wrapping_sub(1)).copied();
            let swapped = earlier(&from, row) == Some(*b) && earlier(&to, column) == Some(*a);
            if row > 0 && column > 0 && swapped {
                best = best.min(at(&before, column - 1) + 1);
            }
            line.push(best);
        }
        before = std::mem::replace(&mut above, line);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_mistake_finds_its_word() {
        let known = ["capacity", "cluster", "role", "tier"];
        assert_eq!(nearest("capcity", known), Some("capacity"));
        assert_eq!(nearest("Clutser", known), Some("cluster"));
        assert_eq!(nearest("teir", known), Some("tier"));
    }

    #[test]
    fn a_word_far_from_all_finds_none() {
        assert_eq!(nearest("banana", ["capacity", "role"]), None);
        assert_eq!(nearest("x", ["role", "y"]), None);
        assert_eq!(nearest(&"capacity".repeat(100), ["capacity"]), None);
        assert_eq!(nearest("", ["role"]), None);
    }
}
