//! Puts a proxy into a pod: a pure function from the pod as its author wrote it to the pod as it runs in the mesh. The
//! operator's webhook and the command `hauberk inject` both call it.
