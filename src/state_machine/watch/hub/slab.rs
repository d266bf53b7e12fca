//! Places that are used again, and names that are not.

/// Names a value in a [`Slab`]; stays unique after its place is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    pub(super) fn index(self) -> usize {
        self.index as usize
    }

    pub(super) fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_number(number: u64) -> Key {
        Key {
            // Its two halves.
            index: number as u32,
            generation: (number >> 32) as u32,
        }
    }
}

/// Values in places of one row.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Slab<T> {
        Slab {
            places: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        match self.free.pop() {
            Some(index) => {
                let place = &mut self.places[index as usize];
                place.0 = place.0.wrapping_add(1);
                place.1 = Some(value);
                Key {
                    index,
                    generation: place.0,
                }
            }
            None => {
                let index = self.places.len() as u32;
                self.places.push((0, Some(value)));
                Key {
                    index,
                    generation: 0,
                }
            }
        }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let place = self.places.get(key.index as usize)?;
        place.1.as_ref().filter(|_| place.0 == key.generation)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        place.1.as_mut().filter(|_| place.0 == key.generation)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.0 != key.generation {
            return None;
        }
        let value = place.1.take()?;
        self.free.push(key.index);
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.places
            .iter()
            .enumerate()
            .filter_map(|(index, (generation, value))| {
                let key = Key {
                    index: index as u32,
                    generation: *generation,
                };
                Some((key, value.as_ref()?))
            })
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_outlives_its_value_and_names_nothing_else() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        let c = slab.insert('c');
        assert!(slab.get(a).is_none() && slab.get_mut(a).is_none());
        assert_eq!(slab.remove(a), None);
        assert_eq!(
            (slab.get(b), slab.get(c), slab.len()),
            (Some(&'b'), Some(&'c'), 2)
        );
        assert_eq!(slab.keys(), [c, b]);
    }
}
