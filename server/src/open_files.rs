//! The process's limit on open files.

/// Takes what the system allows. Each TCP connection is an open file, and the usual soft limit of 1,024, which is there for
/// programs that use `select`, would end a server long before its own limits do. The hard limit stays as the administrator set it.
pub(crate) fn raise_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current == maximum {
            return;
        }
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            tracing::debug!(%error, ?current, "the limit on open files stays as it is");
        }
    }
}
