//! How an endpoint is chosen among those of a destination.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// The most points that may be asked for on a ring. Each takes ten bytes in every proxy that uses it.
pub const MAX_RING_SIZE: u64 = 1 << 20;

/// A maglev table has fewer slots. Each takes two bytes in every proxy that uses it.
pub const MAGLEV_SIZE_BELOW: u64 = 5_000_011;

/// How endpoints are chosen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
// Not CEL: below 256 subsets with 4096 ports each, a server would refuse any rule for its estimated cost.
#[schemars(extend("allOf" = [
    { "not": { "required": ["simple", "consistentHash"] } },
    { "not": { "required": ["localityLbSetting", "zoneAwareLbSetting"] } },
]))]
pub struct LoadBalancer {
    /// A balancer without a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simple: Option<SimpleBalancer>,
    /// A balancer that keeps a key at its endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
    /// Shares or preference by locality: one of distribute, failover and failoverPriority, or the nearest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality_lb_setting: Option<LocalitySetting>,
    /// Preference for the own zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_aware_lb_setting: Option<ZoneAwareSetting>,
    /// Deprecated: use warmup.duration, which goes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_duration_secs: Option<Duration>,
    /// A slow start for new endpoints, with ROUND_ROBIN and LEAST_REQUEST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Warmup>,
}

/// A balancer without a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleBalancer {
    /// The default, LEAST_REQUEST.
    #[default]
    Unspecified,
    /// Any endpoint.
    Random,
    /// The address the client dialled.
    Passthrough,
    /// One after the other.
    RoundRobin,
    /// The one with fewer requests under way, of two.
    LeastRequest,
    /// Deprecated: LEAST_REQUEST.
    LeastConn,
    /// The one with the lower recent latency and load, of two. Our extension.
    PeakEwma,
}

/// A balancer that keeps a key at its endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "oneOf" = [
        { "required": ["httpHeaderName"] },
        { "required": ["httpCookie"] },
        { "required": ["useSourceIp"] },
        { "required": ["httpQueryParameterName"] },
    ],
    "not" = { "required": ["ringHash", "maglev"] },
))]
pub struct ConsistentHash {
    /// The key is the values of this header. A request without its key goes to any endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_header_name: Option<String>,
    /// The key is this cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_cookie: Option<HttpCookie>,
    /// The key is the client's address: for a proxy beside a pod, that of its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_source_ip: Option<bool>,
    /// The key is the first value of this query parameter, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_query_parameter_name: Option<String>,
    /// The ring hash algorithm (the default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_hash: Option<RingHash>,
    /// The maglev algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maglev: Option<Maglev>,
    /// Deprecated: use ringHash.minimumRingSize.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_ring_size: Option<u64>,
}

/// A cookie as the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCookie {
    /// Its name.
    pub name: String,
    /// The path of a cookie that is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The lifetime of a cookie that is made where a request has none; 0s for one that ends with the client's
    /// session. When absent, none is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// More attributes of a cookie that is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute of a cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CookieAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// The ring hash algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RingHash {
    /// The least number of points on the ring; 1024 when absent, 1048576 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_ring_size: Option<u64>,
}

/// The maglev algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maglev {
    /// The size of the table, a prime below 5000011; 65537 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_size: Option<u64>,
}

/// Preference by locality.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalitySetting {
    /// Explicit shares by locality.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distribute: Vec<Distribute>,
    /// Where a region's traffic goes when the region fails; needs outlierDetection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failover: Vec<Failover>,
    /// Labels, most significant first, with a value or that of the client's pod; those with more in common go first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failover_priority: Vec<String>,
    /// false: no preference by place, by topology hints as little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// The shares of the traffic from one locality.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Distribute {
    /// The locality it comes from: region/zone/subzone, of which the last may be *. The first that fits counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Shares by locality it goes to, 100 in sum. Other endpoints get nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub to: BTreeMap<String, u32>,
}

/// Where a region's traffic goes when the region fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// The region that fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The region that takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Preference for the own zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ZoneAwareSetting {
    /// Whether it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Where a region's traffic goes when the region fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failover: Vec<Failover>,
    /// Labels, most significant first, whose match decides the order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failover_priority: Vec<String>,
    /// The least number of endpoints for it to act; 6 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_cluster_size: Option<u32>,
}

/// A slow start for new endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Warmup {
    /// How long it takes.
    pub duration: Duration,
    /// The share of its weight an endpoint starts with; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_percent: Option<f64>,
    /// The shape of the ramp: 1.0, the default, is a straight line; above, it is steeper at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggression: Option<f64>,
}
