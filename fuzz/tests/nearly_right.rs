//! The checks of the fuzz targets on bytes that are nearly right: their seeds with some bytes changed, doubled, cut out or
//! cut off. Runs with the ordinary tests, so that targets stay true where nobody has libFuzzer.

use fuzz::{TARGETS, Target, seeds};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Double(Index, u8),
    Cut(Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
            Self::Remove(at) => {
                bytes.remove(at.index(bytes.len()));
            }
            Self::Double(at, length) => {
                let at = at.index(bytes.len());
                let end = bytes.len().min(at + usize::from(*length));
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => at().prop_map(Change::Remove),
        1 => (at(), any::<u8>()).prop_map(|(at, length)| Change::Double(at, length)),
        1 => at().prop_map(Change::Cut),
    ]
}

fn nearly_right(target: Target) {
    let seeds = seeds(target.name);
    for seed in &seeds {
        (target.check)(seed);
    }
    let input = (any::<Index>(), vec(change(), 0..6)).prop_map(move |(seed, changes)| {
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        bytes
    });
    let mut runner = TestRunner::new(Config {
        cases: 8 * Config::default().cases,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&input, |bytes| {
        (target.check)(&bytes);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{}: {error}", target.name);
    }
}

#[test]
fn every_target_holds_on_bytes_that_are_nearly_right() {
    for target in TARGETS {
        nearly_right(target);
    }
}
