//! The roles are those of `kubernetes::rbac::CALLS`.

use std::fmt::Write as _;

use control_plane::kubernetes::rbac::{CALLS, Scope};

use crate::hold;

const HEADER: &str = "\
# Made from the table in control-plane/src/kubernetes/rbac.rs; rewrite it with
# UPDATE=1 cargo test -p control-plane --test charts
";

fn list(of: &[&str]) -> String {
    let quoted: Vec<_> = of
        .iter()
        .map(|word| if word.is_empty() { "\"\"" } else { word })
        .collect();
    format!("[{}]", quoted.join(", "))
}

fn role(out: &mut String, kind: &str, namespace: &str, scope: Scope) {
    let metadata = format!(
        "metadata:\n  name: {{{{ include \"hauberk.name\" . }}}}\n{namespace}  labels:\n    {{{{- include \"hauberk.labels\" . | nindent 4 }}}}\n"
    );
    let api = "apiVersion: rbac.authorization.k8s.io/v1";
    write!(out, "{api}\nkind: {kind}\n{metadata}rules:\n").unwrap();
    for call in CALLS.iter().filter(|call| call.scope == scope) {
        writeln!(out, "  # {}", call.why).unwrap();
        writeln!(out, "  - apiGroups: {}", list(&[call.group])).unwrap();
        writeln!(out, "    resources: {}", list(call.resources)).unwrap();
        if !call.names.is_empty() {
            writeln!(out, "    resourceNames: {}", list(call.names)).unwrap();
        }
        writeln!(out, "    verbs: {}", list(call.verbs)).unwrap();
    }
    write!(
        out,
        "---\n{api}\nkind: {kind}Binding\n{metadata}roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {kind}\n  name: {{{{ include \"hauberk.name\" . }}}}\n\
         subjects:\n  - kind: ServiceAccount\n    name: {{{{ include \"hauberk.name\" . }}}}\n    namespace: {{{{ .Release.Namespace }}}}\n"
    )
    .unwrap();
}

#[test]
fn the_operator_may_do_what_it_does_and_nothing_else() {
    let mut made = HEADER.to_owned();
    role(&mut made, "ClusterRole", "", Scope::Cluster);
    made.push_str("---\n");
    role(
        &mut made,
        "Role",
        "  namespace: {{ .Release.Namespace }}\n",
        Scope::Root,
    );
    hold("charts/hauberk/templates/rbac.yaml", &made);
}
