//! Bounds that both sides hold: what is larger is refused by name, not cut.

use std::time::Duration;

/// HTTP rules in one route.
pub const MAX_HTTP_RULES: usize = 10_000;
/// Length of a regular expression, in bytes.
pub const MAX_REGEX_LEN: usize = 1024;
/// Memory of one compiled regular expression, in bytes.
pub const MAX_REGEX_SIZE: usize = 1 << 20;
/// Endpoints of one service port.
pub const MAX_ENDPOINTS: usize = 10_000;
/// Names in one subscription message.
pub const MAX_SUBSCRIPTIONS: usize = 10_000;
/// Length of a resource name, in bytes.
pub const MAX_NAME_LEN: usize = 512;
/// Encoded size of one message on the stream, in bytes.
pub const MAX_MESSAGE_SIZE: usize = 16 << 20;
/// Body of a direct response, in bytes.
pub const MAX_DIRECT_BODY: usize = 1 << 20;
/// Mirrors of one rule.
pub const MAX_MIRRORS: usize = 16;
/// Tries after the first.
pub const MAX_RETRY_ATTEMPTS: u32 = 100;
/// Points of a consistent balancer's ring that may be asked for, and the most that one has.
pub const MAX_RING_SIZE: u32 = 1 << 20;
/// Slots of a consistent balancer's maglev table are fewer.
pub const MAGLEV_SIZE_BELOW: u32 = 5_000_011;
/// Places that a cluster may tell its endpoints apart by.
pub const MAX_PLACES: usize = 256;

/// Points of a ring, by default.
pub const RING_SIZE: u32 = 1024;
/// Slots of a maglev table, by default.
pub const MAGLEV_SIZE: u32 = 65_537;
/// Time to connect to an endpoint unless a DestinationRule says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle time of a pooled HTTP connection or a TCP stream unless a DestinationRule says otherwise.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Share of retries among the requests under way, in percent.
pub const RETRY_BUDGET_PERCENT: f64 = 20.0;
/// Retries under way that the budget always allows.
pub const RETRY_BUDGET_MIN: u32 = 3;
/// Tries after the first, by default.
pub const RETRY_ATTEMPTS: u32 = 2;
/// Base of the exponential back-off between tries.
pub const RETRY_BACKOFF: Duration = Duration::from_millis(25);
