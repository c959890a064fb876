{{- define "fleet.name" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "fleet.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "fleet.labels" -}}
{{ include "fleet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "fleet.brokerSecret" -}}
{{- .Values.broker.existingSecret | default (printf "%s-broker" (include "fleet.name" .)) -}}
{{- end -}}

{{- define "fleet.hardened" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* One process of the fleet as a pod: root, part, command, resources, env, ports, probes,
     keys (true: with the keys of models), claimed (true: its data is on a claimed volume). */}}
{{- define "fleet.pod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "fleet.selector" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .part }}
  annotations:
    checksum/config: {{ include (print $root.Template.BasePath "/config.yaml") $root | sha256sum }}
    {{- with $root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  # A Service named `fleet` would set FLEET_SERVICE_HOST and the like.
  enableServiceLinks: false
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ $root.Values.terminationGracePeriodSeconds }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    runAsGroup: 1000
    fsGroup: 1000
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: { type: RuntimeDefault }
  containers:
    - name: {{ .part }}
      image: {{ printf "%s:%s" $root.Values.image.repository ($root.Values.image.tag | default $root.Chart.AppVersion) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: {{ toJson .command }}
      securityContext:
        {{- include "fleet.hardened" $root | nindent 8 }}
      env:
        - name: FLEET_BROKER_URL
          valueFrom:
            secretKeyRef: { name: {{ include "fleet.brokerSecret" $root }}, key: url }
        # A folder that the process makes itself: the volume's own belongs to root.
        - { name: FLEET_DATA_DIR, value: /var/lib/fleet/data }
        - { name: FLEET_STOP_GRACE_S, value: {{ $root.Values.terminationGracePeriodSeconds | quote }} }
        {{- with .env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if and .keys $root.Values.keysSecret }}
      envFrom:
        - secretRef: { name: {{ $root.Values.keysSecret }} }
      {{- end }}
      {{- with .ports }}
      ports:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .probes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        - { name: config, mountPath: /etc/fleet, readOnly: true }
        - { name: data, mountPath: /var/lib/fleet }
        - { name: tmp, mountPath: /tmp }
  volumes:
    - name: config
      configMap: { name: {{ include "fleet.name" $root }} }
    {{- if not .claimed }}
    - { name: data, emptyDir: {} }
    {{- end }}
    - { name: tmp, emptyDir: {} }
  {{- with $root.Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $root.Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* A Deployment of one process: the same arguments, and replicas. */}}
{{- define "fleet.deployment" -}}
{{- $root := .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "fleet.name" $root }}-{{ .part }}
  labels:
    {{- include "fleet.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .part }}
spec:
  replicas: {{ .replicas }}
  selector:
    matchLabels:
      {{- include "fleet.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ .part }}
  template:
    {{- include "fleet.pod" . | nindent 4 }}
{{- end -}}
