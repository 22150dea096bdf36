//! A list that grows in pieces: nothing in it moves when it grows, so that growing costs what is added.

/// Elements of a piece.
const PIECE: usize = 4_096;

/// A growing list.
#[derive(Debug, Clone)]
pub(crate) struct Segments<T> {
    /// All but the last are full.
    pieces: Vec<Vec<T>>,
}

impl<T> Default for Segments<T> {
    fn default() -> Self {
        Self { pieces: Vec::new() }
    }
}

impl<T> Segments<T> {
    pub(crate) fn len(&self) -> usize {
        let last = self.pieces.last().map_or(PIECE, Vec::len);
        self.pieces.len().saturating_mul(PIECE).saturating_add(last).saturating_sub(PIECE)
    }

    pub(crate) fn get(&self, place: usize) -> Option<&T> {
        self.pieces.get(place / PIECE)?.get(place % PIECE)
    }

    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.pieces.get_mut(place / PIECE)?.get_mut(place % PIECE)
    }

    pub(crate) fn push(&mut self, element: T) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(element),
            Some(_) | None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(element);
                self.pieces.push(piece);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }

    /// The elements of a range, as far as it lies in the list.
    pub(crate) fn range(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = &T> {
        range.map_while(|place| self.get(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_across_pieces() {
        let mut list = Segments::default();
        assert_eq!((list.len(), list.get(0)), (0, None));
        let count = PIECE * 2 + 3;
        (0..count).for_each(|element| list.push(element));
        assert_eq!(list.len(), count);
        assert!(list.iter().copied().eq(0..count));
        assert!(list.range(PIECE - 2..PIECE + 2).copied().eq(PIECE - 2..PIECE + 2));
        assert!(list.range(count - 1..count + 5).copied().eq(count - 1..count));
        *list.get_mut(PIECE).expect("it is there") = 7;
        assert_eq!((list.get(PIECE), list.get(count)), (Some(&7), None));
    }
}
