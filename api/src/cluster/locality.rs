//! Which endpoints of a cluster go before others by where they are, as seen from one proxy.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::invalid::{Invalid, each, required};
use crate::{limits, proto};
use proto::locality::By;

/// Labels that an endpoint's topology ([`Endpoint::topology`](crate::Endpoint::topology)) must hold. An empty value is for
/// one that lacks the label. Without any label, every endpoint is meant.
pub type Place = BTreeMap<String, String>;

/// Which endpoints go before others by where they are. An endpoint belongs to the first place that it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locality {
    /// Traffic is shared between places; an endpoint that is in none of them gets nothing.
    Shares(Vec<(Place, NonZeroU32)>),
    /// Traffic goes to the first place that is well enough; an endpoint that is in none of them comes last.
    Levels(Vec<Place>),
}

impl TryFrom<proto::Locality> for Locality {
    type Error = Invalid;

    fn try_from(proto::Locality { by }: proto::Locality) -> Result<Self, Invalid> {
        match required("by", by)? {
            By::Shares(proto::LocalityShares { shares }) => {
                bounded("shares", shares.len())?;
                let shares = each::<_, Share>("shares", shares)?;
                let shares: Vec<_> = shares
                    .into_iter()
                    .map(|Share(place, share)| (place, share))
                    .collect();
                // They are added up.
                match shares
                    .iter()
                    .try_fold(0u32, |sum, (_, share)| sum.checked_add(share.get()))
                {
                    Some(_) => Ok(Self::Shares(shares)),
                    None => Err(Invalid::new("shares", "are more than 4294967295 in sum")),
                }
            }
            By::Levels(proto::LocalityLevels { levels }) => {
                bounded("levels", levels.len())?;
                let places = levels.into_iter().map(|proto::LocalityPlace { labels }| labels);
                Ok(Self::Levels(places.collect()))
            }
        }
    }
}

fn bounded(field: &str, count: usize) -> Result<(), Invalid> {
    match count {
        1..=limits::MAX_PLACES => Ok(()),
        _ => Err(Invalid::new(
            field,
            format!("has {count} places: use 1 to {}", limits::MAX_PLACES),
        )),
    }
}

struct Share(Place, NonZeroU32);

impl TryFrom<proto::LocalityShare> for Share {
    type Error = Invalid;

    fn try_from(proto::LocalityShare { labels, share }: proto::LocalityShare) -> Result<Self, Invalid> {
        let share = NonZeroU32::new(share).ok_or_else(|| Invalid::new("share", "is 0: use 1 or more"))?;
        Ok(Self(labels, share))
    }
}

impl From<Locality> for proto::Locality {
    fn from(locality: Locality) -> Self {
        let by = match locality {
            Locality::Shares(shares) => By::Shares(proto::LocalityShares {
                shares: shares
                    .into_iter()
                    .map(|(labels, share)| proto::LocalityShare {
                        labels,
                        share: share.get(),
                    })
                    .collect(),
            }),
            Locality::Levels(levels) => By::Levels(proto::LocalityLevels {
                levels: levels
                    .into_iter()
                    .map(|labels| proto::LocalityPlace { labels })
                    .collect(),
            }),
        };
        Self { by: Some(by) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_followed_is_named() {
        let share = |share| proto::LocalityShare {
            labels: BTreeMap::new(),
            share,
        };
        let shares = |shares: &[u32]| {
            By::Shares(proto::LocalityShares {
                shares: shares.iter().map(|n| share(*n)).collect(),
            })
        };
        let levels = |count| {
            By::Levels(proto::LocalityLevels {
                levels: vec![proto::LocalityPlace::default(); count],
            })
        };
        for (by, field) in [
            (None, Some("by")),
            (Some(shares(&[])), Some("shares")),
            (Some(shares(&[1, 0])), Some("shares[1].share")),
            (Some(shares(&[u32::MAX, 1])), Some("shares")),
            (Some(shares(&[80, 20])), None),
            (Some(levels(0)), Some("levels")),
            (Some(levels(limits::MAX_PLACES)), None),
            (Some(levels(limits::MAX_PLACES + 1)), Some("levels")),
        ] {
            let problem = Locality::try_from(proto::Locality { by }).err().map(|e| e.field);
            assert_eq!(problem.as_deref(), field);
        }
    }
}
