{{/* What several templates share. Names and ports are those of api/src/names.rs; a test compares them. */}}

{{/* Fails early, with the remedy, where the release could not work. */}}
{{- define "hauberk.verify" -}}
{{- if and .Release.Namespace (ne .Release.Namespace "hauberk-system") }}
{{- fail (printf "Hauberk lives in the namespace hauberk-system, and this release is in %q: install it with `--namespace hauberk-system --create-namespace`" .Release.Namespace) }}
{{- end }}
{{- if and .Values.metrics.podMonitor.enabled (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) }}
{{- fail "metrics.podMonitor.enabled: this cluster has no monitoring.coreos.com/v1: install the Prometheus operator first, or leave the PodMonitor off and use metrics.annotations" }}
{{- end }}
{{- end }}

{{- define "hauberk.name" -}}
hauberk-control-plane
{{- end }}

{{/* Labels by which operators are selected: they never change, as selectors cannot. */}}
{{- define "hauberk.selector" -}}
app.kubernetes.io/name: hauberk-control-plane
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hauberk.labels" -}}
{{ include "hauberk.selector" . }}
app.kubernetes.io/component: control-plane
app.kubernetes.io/part-of: hauberk
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image's full name, of a list: the root, then the image's values. */}}
{{- define "hauberk.image" -}}
{{- $root := index . 0 }}
{{- $image := index . 1 }}
{{- $name := $image.repository }}
{{- with $root.Values.image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .) $name }}{{ end }}
{{- if $image.digest }}{{ printf "%s@%s" $name $image.digest }}
{{- else }}{{ printf "%s:%s" $name (default $root.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/* What the operator reads as /etc/hauberk/injection.yaml. */}}
{{- define "hauberk.injection" -}}
{{- $mesh := dict "trustDomain" .Values.trustDomain }}
{{- $image := dict "image" (include "hauberk.image" (list . .Values.image.proxy)) "imagePullPolicy" .Values.image.pullPolicy }}
{{- merge (deepCopy .Values.injection.proxy) $image $mesh | toYaml }}
{{- end }}
