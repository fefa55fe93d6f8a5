//! What most sessions never have, or not for long.

use std::ops::Deref;

/// Takes the room of a pointer until it is first changed; until then it reads as [`Blank::BLANK`].
#[derive(Debug)]
pub(super) struct Rare<T>(Option<Box<T>>);

/// What can be read before there is one.
pub(super) trait Blank: Default + 'static {
    /// The same as the default.
    const BLANK: &'static Self;
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Blank> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::BLANK)
    }
}

impl<T: Blank> Rare<T> {
    /// To change it, if there is any.
    pub(super) fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// To change it. From now on there is one.
    pub(super) fn make(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }

    /// It is as blank as at first.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}
