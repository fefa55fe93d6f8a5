//! A uniform grid over the arena: who is near, without looking at everybody.

/// Cells in compressed rows, rebuilt in two passes per tick. The buffers keep their capacity, so a rebuild
/// does not allocate once the arena has reached its size.
#[derive(Debug)]
pub(super) struct Grid {
    cell: f32,
    side: usize,
    /// `starts[c]..starts[c + 1]` is the slice of `items` that lies in cell `c`.
    starts: Vec<u32>,
    items: Vec<u16>,
}

impl Grid {
    /// `extent` is the edge of the square arena, `cell` the edge of a cell, both in world units.
    pub(super) fn new(extent: f32, cell: f32) -> Self {
        let side = ((extent / cell).ceil() as usize).max(1);
        Self { cell, side, starts: vec![0; side * side + 1], items: Vec::new() }
    }

    /// Replaces the contents. The iterator is walked twice: to count, and to place.
    pub(super) fn rebuild(&mut self, items: impl Iterator<Item = (u16, f32, f32)> + Clone) {
        self.starts.fill(0);
        let mut total = 0;
        for (_, x, y) in items.clone() {
            let cell = self.cell_of(x, y);
            self.starts[cell] += 1;
            total += 1;
        }
        let mut end = 0;
        for start in &mut self.starts {
            end += *start;
            *start = end;
        }
        // Each start now holds the end of its cell; placing an item moves it one down, and leaves the true start.
        self.items.clear();
        self.items.resize(total, 0);
        for (id, x, y) in items {
            let cell = self.cell_of(x, y);
            self.starts[cell] -= 1;
            self.items[self.starts[cell] as usize] = id;
        }
    }

    /// Everything in the cells that a circle touches: a superset of what lies within `radius`.
    pub(super) fn near(&self, x: f32, y: f32, radius: f32) -> impl Iterator<Item = u16> + '_ {
        let columns = self.index(x - radius)..=self.index(x + radius);
        let rows = self.index(y - radius)..=self.index(y + radius);
        rows.flat_map(move |row| {
            // The cells of one row lie side by side, so one row is one slice.
            let first = row * self.side + columns.start();
            let last = row * self.side + columns.end();
            let slice = self.starts[first] as usize..self.starts[last + 1] as usize;
            self.items[slice].iter().copied()
        })
    }

    fn cell_of(&self, x: f32, y: f32) -> usize {
        self.index(y) * self.side + self.index(x)
    }

    /// Clamped, so that a coordinate outside the arena (or not a number) lands in a border cell.
    fn index(&self, coordinate: f32) -> usize {
        ((coordinate / self.cell).max(0.0) as usize).min(self.side - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::rng::Rng;

    #[test]
    fn near_finds_everything_within_the_radius() {
        let mut rng = Rng::new(1);
        let points: Vec<(u16, f32, f32)> =
            (0..500).map(|id| (id, rng.between(-20.0, 1020.0), rng.between(-20.0, 1020.0))).collect();
        let mut grid = Grid::new(1000.0, 90.0);
        grid.rebuild(points.iter().copied());
        for &(_, x, y) in &points {
            let mut found: Vec<u16> = grid.near(x, y, 130.0).collect();
            found.sort_unstable();
            let all = found.len();
            found.dedup();
            assert_eq!(all, found.len(), "nothing is found twice");
            for &(id, px, py) in &points {
                if (px - x).hypot(py - y) <= 130.0 {
                    assert!(found.binary_search(&id).is_ok());
                }
            }
        }
    }

    #[test]
    fn rebuilding_forgets_what_was_there() {
        let mut grid = Grid::new(100.0, 10.0);
        grid.rebuild([(1, 5.0, 5.0), (2, 95.0, 95.0)].into_iter());
        grid.rebuild([(3, 50.0, 50.0)].into_iter());
        assert_eq!(grid.near(50.0, 50.0, 100.0).collect::<Vec<_>>(), [3]);
        grid.rebuild(std::iter::empty());
        assert_eq!(grid.near(50.0, 50.0, f32::NAN).count(), 0);
    }
}
