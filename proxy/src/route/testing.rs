//! Routes for unit tests.

use std::sync::Arc;

use api::{Action, Forward, HeaderChanges, HttpMatch, HttpRule, Retry, Split, TcpRule, WeightedCluster};

use crate::balancer::Weights;
use crate::config::snapshot::{Cluster, Route};
use crate::live::ClusterLive;
use crate::route::Index;

fn split(clusters: &[(&str, u32)]) -> Split {
    let share = |(cluster, weight): &(&str, u32)| WeightedCluster {
        cluster: (*cluster).to_owned(),
        weight: *weight,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
    };
    Split::new(clusters.iter().map(share).collect()).unwrap()
}

/// A rule that forwards by a split.
pub(crate) fn rule(matches: Vec<HttpMatch>, clusters: &[(&str, u32)]) -> HttpRule {
    acting(
        matches,
        Action::Forward(Box::new(Forward {
            split: split(clusters),
            timeout: None,
            retry: Retry::default(),
            rewrite: None,
            fault: None,
            mirrors: Vec::new(),
        })),
    )
}

/// A rule with any action.
pub(crate) fn acting(matches: Vec<HttpMatch>, action: Action) -> HttpRule {
    HttpRule {
        name: String::new(),
        source: None,
        matches,
        action,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        cors: None,
    }
}

/// A rule for connections.
pub(crate) fn tcp_rule(sni: &[&str], clusters: &[(&str, u32)]) -> TcpRule {
    TcpRule {
        name: String::new(),
        source: None,
        sni: sni.iter().map(|name| (*name).to_owned()).collect(),
        split: split(clusters),
    }
}

/// A route with its clusters, which have no endpoints.
pub(crate) fn route(http: Vec<HttpRule>, tcp: Vec<TcpRule>) -> Route {
    let cluster = |share: &WeightedCluster| {
        Arc::new(Cluster {
            name: share.cluster.as_str().into(),
            spec: Arc::new(api::Cluster::of("reviews.shop:80")),
            endpoints: Vec::new(),
            weights: Weights::default(),
            live: Arc::new(ClusterLive::new(share.cluster.as_str())),
            absent: None,
        })
    };
    let clusters = |split: &Split| split.clusters().iter().map(cluster).collect::<Vec<_>>();
    Route {
        name: "reviews.shop:80".into(),
        version: api::Version::from_wire(1).unwrap(),
        http: http
            .iter()
            .map(|rule| match &rule.action {
                Action::Forward(forward) => clusters(&forward.split),
                Action::Redirect(_) | Action::Direct(_) => Vec::new(),
            })
            .collect(),
        tcp: tcp.iter().map(|rule| clusters(&rule.split)).collect(),
        index: Index::of(&http),
        spec: Arc::new(api::Route {
            host: "reviews.shop".to_owned(),
            port: 80,
            protocol: None,
            http,
            tcp,
        }),
    }
}
