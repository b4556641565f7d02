//! Clusters and their shares of traffic.

use crate::invalid::{Invalid, Under};
use crate::proto;
use crate::route::headers::HeaderChanges;

/// Clusters and their shares of traffic. There is at least one, and the weights have a sum above 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    clusters: Vec<WeightedCluster>,
    total: u32,
}

/// One share of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Name of the Cluster resource.
    pub cluster: String,
    /// Relative share; 0 gets nothing.
    pub weight: u32,
    /// Applied to the request, after the rule's.
    pub request_headers: HeaderChanges,
    /// Applied to the response, after the rule's.
    pub response_headers: HeaderChanges,
}

impl Split {
    /// A split; its weights need a sum above 0 that fits 32 bits.
    ///
    /// # Errors
    /// When there is no cluster, or the sum is out of range.
    pub fn new(clusters: Vec<WeightedCluster>) -> Result<Self, Invalid> {
        if clusters.is_empty() {
            return Err(Invalid::new(
                "clusters",
                "is empty: a rule that forwards needs a cluster",
            ));
        }
        let total: u64 = clusters.iter().map(|c| u64::from(c.weight)).sum();
        match u32::try_from(total) {
            Ok(0) => Err(Invalid::new(
                "clusters",
                "have weights with the sum 0: no cluster would get traffic",
            )),
            Ok(total) => Ok(Self { clusters, total }),
            Err(_) => Err(Invalid::new(
                "clusters",
                format!("have weights with the sum {total}, above 32 bits"),
            )),
        }
    }

    /// All traffic to one cluster.
    #[must_use]
    pub fn to(cluster: impl Into<String>) -> Self {
        let only = WeightedCluster {
            cluster: cluster.into(),
            weight: 1,
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
        };
        Self {
            clusters: vec![only],
            total: 1,
        }
    }

    /// The clusters, in the order written.
    #[must_use]
    pub fn clusters(&self) -> &[WeightedCluster] {
        &self.clusters
    }

    /// Sum of the weights, above 0.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Index of the cluster that `roll`, taken evenly from `0..total`, falls on.
    #[must_use]
    pub fn index_of(&self, roll: u32) -> usize {
        let mut left = roll % self.total;
        for (i, cluster) in self.clusters.iter().enumerate() {
            if left < cluster.weight {
                return i;
            }
            left -= cluster.weight;
        }
        0
    }

    pub(in crate::route) fn into_proto(self) -> Vec<proto::WeightedCluster> {
        self.clusters.into_iter().map(Into::into).collect()
    }
}

impl TryFrom<proto::WeightedCluster> for WeightedCluster {
    type Error = Invalid;

    fn try_from(pb: proto::WeightedCluster) -> Result<Self, Invalid> {
        let proto::WeightedCluster {
            cluster,
            weight,
            request_headers,
            response_headers,
        } = pb;
        if cluster.is_empty() {
            return Err(Invalid::new("cluster", "is empty"));
        }
        Ok(Self {
            cluster,
            weight,
            request_headers: HeaderChanges::from_optional(request_headers).under("request_headers")?,
            response_headers: HeaderChanges::from_optional(response_headers).under("response_headers")?,
        })
    }
}

impl From<WeightedCluster> for proto::WeightedCluster {
    fn from(share: WeightedCluster) -> Self {
        let WeightedCluster {
            cluster,
            weight,
            request_headers,
            response_headers,
        } = share;
        Self {
            cluster,
            weight,
            request_headers: request_headers.into_optional(),
            response_headers: response_headers.into_optional(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(weight: u32) -> WeightedCluster {
        WeightedCluster {
            weight,
            ..Split::to("c").clusters[0].clone()
        }
    }

    #[test]
    fn each_roll_falls_on_the_share_that_covers_it() {
        let split = Split::new(vec![share(90), share(0), share(10)]).unwrap();
        assert_eq!(split.index_of(0), 0);
        assert_eq!(split.index_of(89), 0);
        assert_eq!(split.index_of(90), 2);
        assert_eq!(split.index_of(99), 2);
    }

    #[test]
    fn weights_without_a_usable_sum_are_refused() {
        assert!(Split::new(vec![]).is_err());
        assert!(
            Split::new(vec![share(0), share(0)])
                .unwrap_err()
                .problem
                .contains("sum 0")
        );
        assert!(Split::new(vec![share(u32::MAX), share(1)]).is_err());
    }
}
