//! The hash that proxies spread keys over endpoints with. It has no secret and is the same in every process and on every
//! machine, so that all proxies find the same endpoint for a key; it is no protection against keys that are made to meet.

/// XXH3 of the bytes (Yann Collet, <https://xxhash.com>), the same for the same seed.
#[must_use]
pub fn stable_hash(seed: u64, bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(bytes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_one() {
        assert_eq!(stable_hash(0, b""), 0x2d06_8005_38d3_94c2);
        assert_ne!(stable_hash(1, b"a"), stable_hash(2, b"a"));
    }
}
