//! The blocks of a traffic policy, each in the contract's types. A block that is given replaces its like as a whole:
//! what it leaves out is at its default.

mod balancer;
mod locality;
mod tls;
mod wire;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use api::{
    Breaker, Cluster, Http2Keepalive, Invalid, Keepalive, Limits, Outlier, ProxyProtocol, RetryBudget,
    Statuses, Timeouts, TlsMode, Tunnel, limits, proto,
};
use crds::destination_rule as crd;
use crds::destination_rule::connection_pool::{
    H2UpgradePolicy, Http2KeepAlive, HttpPool, TcpKeepalive, TcpPool,
};

use balancer::{Balancing, balancing};
use tls::tls_mode;
use wire::{through, version};

pub(crate) use locality::Rule;

use crate::state::rules::{refuse, whole_ms};

/// The blocks of a traffic policy; `None` for one that is not given.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Blocks {
    balancer: Option<Balancing>,
    pool: Option<Pool>,
    outlier: Option<Outlier>,
    breaker: Option<Breaker>,
    tls: Option<TlsMode>,
    retry_budget: Option<RetryBudget>,
    proxy_protocol: Option<ProxyProtocol>,
    tunnel: Option<Arc<Tunnel>>,
}

/// `connectionPool`.
#[derive(Debug, Clone, PartialEq)]
struct Pool {
    connect_timeout: Duration,
    limits: Limits,
    timeouts: Timeouts,
    keepalive: Option<Keepalive>,
    http2_keepalive: Option<Http2Keepalive>,
    upgrade_to_http2: bool,
    upgrade_outside_mesh: bool,
}

/// The blocks as the object has them.
pub(super) struct Given<'a> {
    pub(super) load_balancer: Option<&'a crd::LoadBalancer>,
    pub(super) connection_pool: Option<&'a crd::ConnectionPool>,
    pub(super) outlier_detection: Option<&'a crd::OutlierDetection>,
    pub(super) circuit_breaker: Option<&'a crd::CircuitBreaker>,
    pub(super) tls: Option<&'a crd::ClientTls>,
    pub(super) retry_budget: Option<&'a crd::RetryBudget>,
    pub(super) proxy_protocol: Option<crd::ProxyProtocol>,
    pub(super) tunnel: Option<&'a crd::Tunnel>,
}

impl Blocks {
    pub(super) fn new(given: Given<'_>) -> Result<Self, Invalid> {
        let Given {
            load_balancer,
            connection_pool,
            outlier_detection,
            circuit_breaker,
            tls,
            retry_budget,
            proxy_protocol,
            tunnel,
        } = given;
        let under = |field: &'static str| move |e: Invalid| e.under(field);
        let blocks = Self {
            balancer: load_balancer
                .map(balancing)
                .transpose()
                .map_err(under("loadBalancer"))?,
            pool: connection_pool
                .map(pool)
                .transpose()
                .map_err(under("connectionPool"))?,
            outlier: outlier_detection
                .map(outlier)
                .transpose()
                .map_err(under("outlierDetection"))?,
            breaker: circuit_breaker
                .map(breaker)
                .transpose()
                .map_err(under("circuitBreaker"))?,
            tls: tls.map(tls_mode).transpose().map_err(under("tls"))?,
            retry_budget: retry_budget
                .map(budget)
                .transpose()
                .map_err(under("retryBudget"))?,
            proxy_protocol: proxy_protocol.map(version),
            tunnel: tunnel.map(through).transpose().map_err(under("tunnel"))?,
        };
        // Through the proxy's own conversion, for the bounds it holds.
        let mut cluster = Cluster::of("checked");
        blocks.apply(&mut cluster);
        // Another layer may say what goes with it: `Policy::new` looks at all of them together.
        cluster.proxy_protocol = None;
        Cluster::try_from(proto::Cluster::from(cluster)).map(|_| blocks)
    }

    /// Each block that `over` has replaces its like.
    pub(super) fn replace(&mut self, over: &Self) {
        let Self {
            balancer,
            pool,
            outlier,
            breaker,
            tls,
            retry_budget,
            proxy_protocol,
            tunnel,
        } = over.clone();
        self.balancer = balancer.or(self.balancer.take());
        self.pool = pool.or(self.pool.take());
        self.outlier = outlier.or(self.outlier);
        self.breaker = breaker.or(self.breaker);
        self.tls = tls.or(self.tls.take());
        self.retry_budget = retry_budget.or(self.retry_budget);
        self.proxy_protocol = proxy_protocol.or(self.proxy_protocol);
        self.tunnel = tunnel.or(self.tunnel.take());
    }

    /// Every block that a port's entry can have is as `entry` has it, or at its default.
    pub(super) fn replace_wholesale(&mut self, entry: &Self) {
        let before = std::mem::replace(self, entry.clone());
        self.retry_budget = before.retry_budget;
        self.proxy_protocol = before.proxy_protocol;
        self.tunnel = before.tunnel;
    }

    /// Whether endpoints are told who calls.
    pub(super) fn announces(&self) -> bool {
        self.proxy_protocol.is_some()
    }

    /// The rule by where endpoints are.
    pub(super) fn locality(&self) -> Option<&Arc<Rule>> {
        self.balancer.as_ref()?.locality.as_ref()
    }

    /// Writes the blocks into a cluster, but for the rule by where endpoints are, see [`Blocks::locality`].
    pub(super) fn apply(&self, cluster: &mut Cluster) {
        let Self {
            balancer,
            pool,
            outlier,
            breaker,
            tls,
            retry_budget,
            proxy_protocol,
            tunnel,
        } = self;
        if let Some(Pool {
            connect_timeout,
            limits,
            timeouts,
            keepalive,
            http2_keepalive,
            upgrade_to_http2,
            upgrade_outside_mesh,
        }) = pool
        {
            cluster.connect_timeout = *connect_timeout;
            cluster.limits = *limits;
            cluster.timeouts = *timeouts;
            cluster.keepalive = *keepalive;
            cluster.http2_keepalive = *http2_keepalive;
            cluster.upgrade_to_http2 = *upgrade_to_http2;
            cluster.upgrade_outside_mesh = *upgrade_outside_mesh;
        }
        if let Some(Balancing {
            balancer,
            warmup,
            locality: _,
        }) = balancer
        {
            cluster.balancer = balancer.clone();
            cluster.warmup = *warmup;
        }
        cluster.outlier = outlier.or(cluster.outlier);
        cluster.breaker = breaker.or(cluster.breaker);
        if let Some(tls) = tls {
            cluster.tls = tls.clone();
        }
        cluster.retry_budget = retry_budget.unwrap_or(cluster.retry_budget);
        cluster.proxy_protocol = proxy_protocol.or(cluster.proxy_protocol);
        if let Some(tunnel) = tunnel {
            cluster.tunnel = Some(Arc::clone(tunnel));
        }
    }
}

/// `None` and 0 both mean no bound.
fn bound(value: Option<u32>) -> Option<NonZeroU32> {
    value.and_then(NonZeroU32::new)
}

/// Left out is the default, 0s is off.
fn idle(value: Option<crds::Duration>) -> Option<Duration> {
    value.map_or(Some(limits::IDLE_TIMEOUT), |d| {
        Some(whole_ms(d.get())).filter(|d| !d.is_zero())
    })
}

fn given(value: Option<crds::Duration>) -> Option<Duration> {
    value.map(|d| whole_ms(d.get())).filter(|d| !d.is_zero())
}

fn pool(block: &crd::ConnectionPool) -> Result<Pool, Invalid> {
    let (no_tcp, no_http) = (TcpPool::default(), HttpPool::default());
    let crd::ConnectionPool { tcp, http } = block;
    let TcpPool {
        max_connections,
        connect_timeout,
        tcp_keepalive,
        max_connection_duration,
        idle_timeout: tcp_idle,
    } = tcp.as_ref().unwrap_or(&no_tcp);
    let HttpPool {
        http1_max_pending_requests,
        http2_max_requests,
        max_requests_per_connection,
        max_retries,
        idle_timeout: http_idle,
        h2_upgrade_policy,
        use_client_protocol,
        max_concurrent_streams,
        http2_keep_alive,
    } = http.as_ref().unwrap_or(&no_http);
    let (in_mesh, outside) = match h2_upgrade_policy.unwrap_or_default() {
        _ if *use_client_protocol == Some(true) => (false, false),
        H2UpgradePolicy::Default => (true, false),
        H2UpgradePolicy::Upgrade => (true, true),
        H2UpgradePolicy::DoNotUpgrade => (false, false),
    };
    Ok(Pool {
        connect_timeout: given(*connect_timeout).unwrap_or(limits::CONNECT_TIMEOUT),
        limits: Limits {
            max_connections: bound(*max_connections),
            max_pending_requests: bound(*http1_max_pending_requests),
            max_requests: bound(*http2_max_requests),
            max_retries: bound(*max_retries),
            max_requests_per_connection: bound(*max_requests_per_connection),
            // The greatest number is upstream's word for no limit.
            max_concurrent_streams: bound(*max_concurrent_streams)
                .filter(|n| n.get() < i32::MAX.unsigned_abs()),
        },
        timeouts: Timeouts {
            http_idle: idle(*http_idle),
            tcp_idle: idle(*tcp_idle),
            max_connection: given(*max_connection_duration),
        },
        keepalive: tcp_keepalive.as_ref().map(
            |TcpKeepalive {
                 probes,
                 time,
                 interval,
             }| Keepalive {
                probes: bound(*probes),
                time: given(*time),
                interval: given(*interval),
            },
        ),
        http2_keepalive: http2_keep_alive.map(|Http2KeepAlive { interval, timeout }| Http2Keepalive {
            interval: whole_ms(interval.get()),
            timeout: whole_ms(timeout.get()),
        }),
        upgrade_to_http2: in_mesh,
        upgrade_outside_mesh: outside,
    })
}

fn outlier(block: &crd::OutlierDetection) -> Result<Outlier, Invalid> {
    let crd::OutlierDetection {
        consecutive_errors,
        split_external_local_origin_errors,
        consecutive_local_origin_failures,
        consecutive_gateway_errors,
        consecutive_5xx_errors,
        interval,
        base_ejection_time,
        max_ejection_percent,
        min_health_percent,
        outlier_detection_http_error_codes,
    } = block;
    refuse(&[("consecutiveErrors", consecutive_errors.is_some())])?;
    let time = |value: Option<crds::Duration>, default| value.map_or(default, |d| whole_ms(d.get()));
    Ok(Outlier {
        consecutive_5xx: NonZeroU32::new(consecutive_5xx_errors.unwrap_or(5)),
        consecutive_gateway_errors: bound(*consecutive_gateway_errors),
        split_local_errors: *split_external_local_origin_errors == Some(true),
        consecutive_local_failures: NonZeroU32::new(consecutive_local_origin_failures.unwrap_or(5)),
        interval: time(*interval, Duration::from_secs(10)),
        base_ejection: time(*base_ejection_time, Duration::from_secs(30)),
        max_ejection_percent: max_ejection_percent.unwrap_or(10),
        min_health_percent: min_health_percent.unwrap_or(0),
        error_codes: error_codes(outlier_detection_http_error_codes)?,
    })
}

fn error_codes(codes: &[u32]) -> Result<Option<Statuses>, Invalid> {
    let mut statuses = Statuses::default();
    for code in codes {
        if !u16::try_from(*code).is_ok_and(|code| statuses.insert(code)) {
            let problem = format!("{code} is no status: use 100 to 599");
            return Err(Invalid::new("outlierDetectionHttpErrorCodes", problem));
        }
    }
    Ok((!codes.is_empty()).then_some(statuses))
}

fn breaker(block: &crd::CircuitBreaker) -> Result<Breaker, Invalid> {
    let crd::CircuitBreaker {
        failure_threshold,
        recovery_timeout,
        half_open_requests,
    } = block;
    let at_least_one =
        |field: &str, n| NonZeroU32::new(n).ok_or_else(|| Invalid::new(field, "is 0: use 1 or more"));
    Ok(Breaker {
        failure_threshold: at_least_one("failureThreshold", *failure_threshold)?,
        recovery: whole_ms(recovery_timeout.get()),
        half_open_requests: at_least_one("halfOpenRequests", *half_open_requests)?,
    })
}

fn budget(block: &crd::RetryBudget) -> Result<RetryBudget, Invalid> {
    let crd::RetryBudget {
        percent,
        min_retry_concurrency,
        budget_interval,
    } = block;
    Ok(RetryBudget {
        percent: percent.unwrap_or(limits::RETRY_BUDGET_PERCENT),
        min_concurrency: min_retry_concurrency.unwrap_or(limits::RETRY_BUDGET_MIN),
        interval: given(*budget_interval),
    })
}
