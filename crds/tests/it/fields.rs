//! Every field of `VirtualService` and `DestinationRule`, taken from the schema, set to something other than
//! its default: either it is in the list of what works below, or it is refused as not supported (yet). A field
//! can neither be forgotten nor be ignored.

use std::collections::BTreeSet;

use crds::Severity;
use serde_json::{Map, Value, json};

use crate::examples::findings;

const VIRTUAL_SERVICE: &str = "
spec.hosts[]
spec.exportTo[]
spec.http[].name
spec.http[].match[].name
spec.http[].match[].uri.exact
spec.http[].match[].uri.prefix
spec.http[].match[].uri.regex
spec.http[].match[].scheme.exact
spec.http[].match[].scheme.prefix
spec.http[].match[].scheme.regex
spec.http[].match[].method.exact
spec.http[].match[].method.prefix
spec.http[].match[].method.regex
spec.http[].match[].authority.exact
spec.http[].match[].authority.prefix
spec.http[].match[].authority.regex
spec.http[].match[].headers{}.exact
spec.http[].match[].headers{}.prefix
spec.http[].match[].headers{}.regex
spec.http[].match[].withoutHeaders{}.exact
spec.http[].match[].withoutHeaders{}.prefix
spec.http[].match[].withoutHeaders{}.regex
spec.http[].match[].queryParams{}.exact
spec.http[].match[].queryParams{}.prefix
spec.http[].match[].queryParams{}.regex
spec.http[].match[].port
spec.http[].match[].sourceLabels{}
spec.http[].match[].sourceNamespace
spec.http[].match[].ignoreUriCase
spec.http[].route[].destination.host
spec.http[].route[].destination.subset
spec.http[].route[].destination.port.number
spec.http[].route[].weight
spec.http[].route[].headers.request.set{}
spec.http[].route[].headers.request.add{}
spec.http[].route[].headers.request.remove[]
spec.http[].route[].headers.response.set{}
spec.http[].route[].headers.response.add{}
spec.http[].route[].headers.response.remove[]
spec.http[].redirect.uri
spec.http[].redirect.authority
spec.http[].redirect.scheme
spec.http[].redirect.redirectCode
spec.http[].redirect.port
spec.http[].redirect.derivePort=FROM_PROTOCOL_DEFAULT
spec.http[].redirect.derivePort=FROM_REQUEST_PORT
spec.http[].redirect.prefixRewrite
spec.http[].directResponse.status
spec.http[].directResponse.body.string
spec.http[].directResponse.body.bytes
spec.http[].rewrite.uri
spec.http[].rewrite.authority
spec.http[].rewrite.uriRegexRewrite.match
spec.http[].rewrite.uriRegexRewrite.rewrite
spec.http[].delegate.name
spec.http[].delegate.namespace
spec.http[].timeout
spec.http[].retries.attempts
spec.http[].retries.perTryTimeout
spec.http[].retries.retryOn
spec.http[].retries.retryIgnorePreviousHosts
spec.http[].retries.retryRemoteLocalities
spec.http[].retries.backoff
spec.http[].fault.delay.fixedDelay
spec.http[].fault.delay.percentage.value
spec.http[].fault.delay.percent
spec.http[].fault.abort.httpStatus
spec.http[].fault.abort.grpcStatus
spec.http[].fault.abort.percentage.value
spec.http[].mirror.host
spec.http[].mirror.subset
spec.http[].mirror.port.number
spec.http[].mirrorPercent
spec.http[].mirrorPercentage.value
spec.http[].mirrors[].destination.host
spec.http[].mirrors[].destination.subset
spec.http[].mirrors[].destination.port.number
spec.http[].mirrors[].percentage.value
spec.http[].corsPolicy.allowOrigins[].exact
spec.http[].corsPolicy.allowOrigins[].prefix
spec.http[].corsPolicy.allowOrigins[].regex
spec.http[].corsPolicy.allowOrigin[]
spec.http[].corsPolicy.allowMethods[]
spec.http[].corsPolicy.allowHeaders[]
spec.http[].corsPolicy.exposeHeaders[]
spec.http[].corsPolicy.maxAge
spec.http[].corsPolicy.allowCredentials
spec.http[].corsPolicy.unmatchedPreflights=UNSPECIFIED
spec.http[].corsPolicy.unmatchedPreflights=FORWARD
spec.http[].corsPolicy.unmatchedPreflights=IGNORE
spec.http[].headers.request.set{}
spec.http[].headers.request.add{}
spec.http[].headers.request.remove[]
spec.http[].headers.response.set{}
spec.http[].headers.response.add{}
spec.http[].headers.response.remove[]
spec.tls[].match[].sniHosts[]
spec.tls[].match[].port
spec.tls[].match[].sourceLabels{}
spec.tls[].match[].sourceNamespace
spec.tls[].route[].destination.host
spec.tls[].route[].destination.subset
spec.tls[].route[].destination.port.number
spec.tls[].route[].weight
spec.tcp[].match[].port
spec.tcp[].match[].sourceLabels{}
spec.tcp[].match[].sourceNamespace
spec.tcp[].route[].destination.host
spec.tcp[].route[].destination.subset
spec.tcp[].route[].destination.port.number
spec.tcp[].route[].weight
";

/// Of `DestinationRule`, beside what a policy has.
const DESTINATION_RULE: &str = "
spec.host
spec.exportTo[]
spec.workloadSelector.matchLabels{}
spec.subsets[].name
spec.subsets[].labels{}
";

/// Below `trafficPolicy`, of the object and of its subsets.
const POLICY: &str = "
portLevelSettings[].port.number
tunnel.protocol
tunnel.targetHost
tunnel.targetPort
proxyProtocol.version=V1
proxyProtocol.version=V2
retryBudget.percent
retryBudget.minRetryConcurrency
retryBudget.budgetInterval
";

/// Below `trafficPolicy`, and below each of its `portLevelSettings`.
const BLOCKS: &str = "
loadBalancer.simple=UNSPECIFIED
loadBalancer.simple=RANDOM
loadBalancer.simple=ROUND_ROBIN
loadBalancer.simple=LEAST_REQUEST
loadBalancer.simple=LEAST_CONN
loadBalancer.simple=PEAK_EWMA
loadBalancer.warmupDurationSecs
loadBalancer.warmup.duration
loadBalancer.warmup.minimumPercent
loadBalancer.warmup.aggression
loadBalancer.localityLbSetting.enabled
loadBalancer.localityLbSetting.distribute[].from
loadBalancer.localityLbSetting.distribute[].to{}
loadBalancer.localityLbSetting.failover[].from
loadBalancer.localityLbSetting.failover[].to
loadBalancer.localityLbSetting.failoverPriority[]
loadBalancer.consistentHash.httpHeaderName
loadBalancer.consistentHash.httpCookie.name
loadBalancer.consistentHash.httpCookie.path
loadBalancer.consistentHash.httpCookie.ttl
loadBalancer.consistentHash.httpCookie.attributes[].name
loadBalancer.consistentHash.httpCookie.attributes[].value
loadBalancer.consistentHash.useSourceIp
loadBalancer.consistentHash.httpQueryParameterName
loadBalancer.consistentHash.ringHash.minimumRingSize
loadBalancer.consistentHash.maglev.tableSize
loadBalancer.consistentHash.minimumRingSize
connectionPool.tcp.maxConnections
connectionPool.tcp.connectTimeout
connectionPool.tcp.idleTimeout
connectionPool.tcp.maxConnectionDuration
connectionPool.tcp.tcpKeepalive.probes
connectionPool.tcp.tcpKeepalive.time
connectionPool.tcp.tcpKeepalive.interval
connectionPool.http.http1MaxPendingRequests
connectionPool.http.http2MaxRequests
connectionPool.http.maxRequestsPerConnection
connectionPool.http.maxRetries
connectionPool.http.idleTimeout
connectionPool.http.h2UpgradePolicy=DEFAULT
connectionPool.http.h2UpgradePolicy=DO_NOT_UPGRADE
connectionPool.http.h2UpgradePolicy=UPGRADE
connectionPool.http.useClientProtocol
connectionPool.http.maxConcurrentStreams
connectionPool.http.http2KeepAlive.interval
connectionPool.http.http2KeepAlive.timeout
outlierDetection.consecutive5xxErrors
outlierDetection.consecutiveGatewayErrors
outlierDetection.consecutiveLocalOriginFailures
outlierDetection.splitExternalLocalOriginErrors
outlierDetection.interval
outlierDetection.baseEjectionTime
outlierDetection.maxEjectionPercent
outlierDetection.minHealthPercent
outlierDetection.outlierDetectionHttpErrorCodes[]
circuitBreaker.failureThreshold
circuitBreaker.recoveryTimeout
circuitBreaker.halfOpenRequests
tls.mode=DISABLE
tls.mode=SIMPLE
tls.mode=MUTUAL
tls.mode=ISTIO_MUTUAL
tls.clientCertificate
tls.privateKey
tls.caCertificates
tls.subjectAltNames[]
tls.sni
tls.insecureSkipVerify
tls.caCrl
";

fn lines(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.is_empty())
}

fn supported(kind: &str) -> BTreeSet<String> {
    match kind {
        "VirtualService" => lines(VIRTUAL_SERVICE).map(str::to_owned).collect(),
        "DestinationRule" => {
            let mut all: BTreeSet<_> = lines(DESTINATION_RULE).map(str::to_owned).collect();
            for policy in ["spec.trafficPolicy", "spec.subsets[].trafficPolicy"] {
                all.extend(lines(POLICY).map(|line| format!("{policy}.{line}")));
                for prefix in [policy.to_owned(), format!("{policy}.portLevelSettings[]")] {
                    all.extend(lines(BLOCKS).map(|line| format!("{prefix}.{line}")));
                }
            }
            all
        }
        other => panic!("{other} has no list"),
    }
}

/// A field without fields below it, and a value for it that is not its default.
struct Leaf {
    steps: Vec<Step>,
    value: Value,
    is_choice: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Element,
    Key,
}

impl Leaf {
    /// As in the lists above.
    fn name(&self) -> String {
        let mut name = String::new();
        for step in &self.steps {
            match step {
                Step::Field(field) if name.is_empty() => name += field,
                Step::Field(field) => name += &format!(".{field}"),
                Step::Element => name += "[]",
                Step::Key => name += "{}",
            }
        }
        match &self.value {
            Value::String(choice) if self.is_choice => format!("{name}={choice}"),
            _ => name,
        }
    }

    /// As a finding names it.
    fn path(&self) -> String {
        let name = self.name().replace("[]", "[0]").replace("{}", ".seven");
        name.split('=').next().unwrap().to_owned()
    }
}

fn leaves(schema: &Value, steps: &mut Vec<Step>, found: &mut Vec<Leaf>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, below) in properties {
            steps.push(Step::Field(name.clone()));
            leaves(below, steps, found);
            steps.pop();
        }
    } else if schema["items"].is_object() {
        steps.push(Step::Element);
        leaves(&schema["items"], steps, found);
        steps.pop();
    } else if schema["additionalProperties"].is_object() {
        steps.push(Step::Key);
        leaves(&schema["additionalProperties"], steps, found);
        steps.pop();
    } else if let Some(choices) = schema["enum"].as_array() {
        for value in choices.iter().cloned() {
            found.push(Leaf {
                steps: steps.clone(),
                value,
                is_choice: true,
            });
        }
    } else {
        found.push(Leaf {
            steps: steps.clone(),
            value: plain(schema),
            is_choice: false,
        });
    }
}

fn plain(schema: &Value) -> Value {
    match schema["type"].as_str().unwrap() {
        "boolean" => json!(true),
        "number" => json!(7.5),
        "integer" => json!(
            schema["minimum"]
                .as_f64()
                .map_or(7, |minimum| 7.max(minimum as i64))
        ),
        "string" if schema["pattern"].is_string() => json!("7s"),
        "string" => json!("seven"),
        other => panic!("a leaf of type {other}"),
    }
}

/// The least that a schema takes.
fn least(schema: &Value) -> Value {
    match schema["type"].as_str().unwrap() {
        "object" => {
            let required = schema["required"].as_array().into_iter().flatten();
            let field = |name: &Value| {
                let name = name.as_str().unwrap();
                (name.to_owned(), least(&schema["properties"][name]))
            };
            Value::Object(required.map(field).collect::<Map<_, _>>())
        }
        "array" => json!([least(&schema["items"])]),
        _ => plain(schema),
    }
}

/// The least that a schema takes, with one field set.
fn with(schema: &Value, steps: &[Step], value: &Value) -> Value {
    let Some((step, below)) = steps.split_first() else {
        return value.clone();
    };
    match step {
        Step::Element => json!([with(&schema["items"], below, value)]),
        Step::Key => json!({ "seven": with(&schema["additionalProperties"], below, value) }),
        Step::Field(name) => {
            let mut object = least(schema);
            object[name.as_str()] = with(&schema["properties"][name.as_str()], below, value);
            object
        }
    }
}

#[test]
fn every_field_works_or_is_refused_by_name() {
    let mut count = 0;
    for crd in crds::definitions::all() {
        let kind = crd.spec.names.kind.clone();
        if kind == "PeerAuthentication" {
            continue;
        }
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut found = Vec::new();
        leaves(
            &schema["properties"]["spec"],
            &mut vec![Step::Field("spec".into())],
            &mut found,
        );
        let mut supported = supported(&kind);
        for leaf in &found {
            let mut object = with(schema, &leaf.steps, &leaf.value);
            object["apiVersion"] = json!("hauberk.dev/v1alpha1");
            object["kind"] = json!(kind);
            object["metadata"] = json!({ "name": "seven" });
            let parsed = crds::parse(&object.to_string()).pop().unwrap();
            let object = parsed.unwrap_or_else(|error| panic!("{}: {error}", leaf.name()));
            let path = leaf.path();
            let refused = findings(&object).into_iter().any(|finding| {
                finding.severity == Severity::Unsupported
                    && ["not supported yet; ", "not supported; "]
                        .iter()
                        .any(|words| finding.message.starts_with(words))
                    && path
                        .strip_prefix(&finding.field)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            });
            let listed = supported.remove(&leaf.name());
            assert_eq!(
                refused,
                !listed,
                "{kind} {} (listed as supported: {listed})",
                leaf.name()
            );
            count += 1;
        }
        assert_eq!(
            supported,
            BTreeSet::new(),
            "listed as supported, but no field of {kind}"
        );
    }
    assert!(count > 400, "only {count} fields");
}

#[test]
fn unsupported_fields_may_stand_at_their_default() {
    let text = "
apiVersion: hauberk.dev/v1alpha1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a]
  gateways: [mesh]
  exportTo: ['*']
  http:
  - match: [{gateways: [mesh], uri: {prefix: /a}}]
    route: [{destination: {host: a}}]
    retries: {attempts: 2, retryRemoteLocalities: false}
---
apiVersion: hauberk.dev/v1alpha1
kind: DestinationRule
metadata: {name: a}
spec:
  host: a
  exportTo: ['*']
  trafficPolicy:
    connectionPool: {http: {useClientProtocol: false, maxConcurrentStreams: 2147483647}}
    retryBudget: {budgetInterval: 0ms}
    tls: {mode: ISTIO_MUTUAL, insecureSkipVerify: false}
";
    for object in crds::parse(text) {
        assert_eq!(findings(&object.unwrap()), []);
    }
}
