//! How it is done.

use serde::Serialize;

use super::Inner;
use super::commands::{
    Broadcast, Broadcasted, ChannelList, Channels, Disconnect, Done, History, Id, IdempotencyKey, Info, ListedChannel,
    Member, Members, NotSubscribed, Presence, Publish, Remove, Sent, ServerInfo, Sessions, Set, Subscribe, Subscribed,
    Unsubscribe, Values, message,
};
use super::problem::Problem;
use crate::http::page::{AllValues, Page};
use crate::hub::{Item, SubscribeError};
use crate::session::Session;

/// Something that can be asked for.
pub(super) trait Command: Serialize + Send + 'static {
    const NAME: &'static str;

    type Answer: Serialize;

    /// The idempotency key, of a command that changes something.
    fn key(&mut self) -> Option<&mut Option<IdempotencyKey>> {
        None
    }

    /// What its fields say together, and what no field says by itself: before anything is done.
    fn check(&self) -> Result<(), Problem> {
        Ok(())
    }

    fn run(self, api: &Inner) -> impl Future<Output = Result<Self::Answer, Problem>> + Send;
}

macro_rules! says {
    (content) => {
        fn check(&self) -> Result<(), Problem> {
            message(self.text.as_deref(), self.base64.as_deref()).map(drop)
        }
    };
    (sessions) => {
        fn check(&self) -> Result<(), Problem> {
            whose(self.user.as_deref(), self.session.as_ref()).map(drop)
        }
    };
}

macro_rules! changes {
    () => {
        fn key(&mut self) -> Option<&mut Option<IdempotencyKey>> {
            Some(&mut self.idempotency_key)
        }
    };
}

impl Command for Publish {
    const NAME: &'static str = "publish";

    type Answer = Done;

    changes!();
    says!(content);

    async fn run(self, api: &Inner) -> Result<Done, Problem> {
        let message = message(self.text.as_deref(), self.base64.as_deref())?;
        Ok(api.hub.channel(self.channel.0).publish(message).await?.into())
    }
}

impl Command for Broadcast {
    const NAME: &'static str = "broadcast";

    type Answer = Broadcasted;

    changes!();
    says!(content);

    async fn run(self, api: &Inner) -> Result<Broadcasted, Problem> {
        let message = message(self.text.as_deref(), self.base64.as_deref())?;
        let mut results = Vec::with_capacity(self.channels.len());
        for channel in self.channels {
            let published = api.hub.channel(&*channel.0).publish(message.clone()).await;
            let position = published.as_ref().ok();
            let (epoch, offset) = (position.map(|position| position.epoch), position.map(|position| position.offset));
            results.push(Sent { channel: channel.0, epoch, offset, problem: published.err().map(Problem::from) });
        }
        Ok(Broadcasted { results })
    }
}

impl Command for Set {
    const NAME: &'static str = "set";

    type Answer = Done;

    changes!();
    says!(content);

    async fn run(self, api: &Inner) -> Result<Done, Problem> {
        let message = message(self.text.as_deref(), self.base64.as_deref())?;
        Ok(api.hub.channel(self.channel.0).set(&self.key.0, message).await?.into())
    }
}

impl Command for Remove {
    const NAME: &'static str = "remove";

    type Answer = Done;

    changes!();

    async fn run(self, api: &Inner) -> Result<Done, Problem> {
        Ok(api.hub.channel(self.channel.0).remove(&self.key.0).await?.into())
    }
}

impl Command for Values {
    const NAME: &'static str = "values";

    type Answer = AllValues;

    async fn run(self, api: &Inner) -> Result<AllValues, Problem> {
        Ok(api.hub.channel(self.channel.0).values().await?.into())
    }
}

impl Command for Presence {
    const NAME: &'static str = "presence";

    type Answer = Members;

    async fn run(self, api: &Inner) -> Result<Members, Problem> {
        let members = api.hub.channel(self.channel.0).presence().await?.into_iter();
        let members =
            members.map(|member| Member { id: member.id, user: member.user, info: member.info, about: member.about });
        Ok(Members { members: members.collect() })
    }
}

impl Command for History {
    const NAME: &'static str = "history";

    type Answer = Page;

    async fn run(self, api: &Inner) -> Result<Page, Problem> {
        let since = self.since.map(|since| since.0).filter(|since| *since != Default::default());
        let history = api.hub.page(&self.channel.0, since, self.limit.0.into()).await?;
        let mut page = Page::new(history.newest, history.complete);
        let epoch = history.newest.epoch;
        history.publications.into_iter().for_each(|publication| page.take(Item::Publication(epoch, publication)));
        Ok(page)
    }
}

impl Command for Disconnect {
    const NAME: &'static str = "disconnect";

    type Answer = Sessions;

    changes!();
    says!(sessions);

    async fn run(self, api: &Inner) -> Result<Sessions, Problem> {
        let sessions = api.sessions(self.user.as_deref(), self.session.as_ref())?;
        sessions.iter().for_each(|session| session.close(self.code, &self.reason));
        Ok(Sessions { sessions: sessions.len() })
    }
}

impl Command for Subscribe {
    const NAME: &'static str = "subscribe";

    type Answer = Subscribed;

    changes!();
    says!(sessions);

    async fn run(self, api: &Inner) -> Result<Subscribed, Problem> {
        let channel = api.hub.channel(self.channel.0);
        let mut subscribed = Subscribed { sessions: 0, failed: Vec::new() };
        for session in api.sessions(self.user.as_deref(), self.session.as_ref())? {
            match channel.subscribe(&session).await {
                Ok(()) => subscribed.sessions += 1,
                Err(SubscribeError::Ended) => {} // just now: it is none of them any more
                Err(error) => {
                    let session = session.id().to_string();
                    subscribed.failed.push(NotSubscribed { session, problem: error.into() });
                }
            }
        }
        Ok(subscribed)
    }
}

impl Command for Unsubscribe {
    const NAME: &'static str = "unsubscribe";

    type Answer = Sessions;

    changes!();
    says!(sessions);

    async fn run(self, api: &Inner) -> Result<Sessions, Problem> {
        let channel = api.hub.channel(self.channel.0);
        let sessions = api.sessions(self.user.as_deref(), self.session.as_ref())?;
        sessions.iter().for_each(|session| channel.unsubscribe(session, &self.reason));
        Ok(Sessions { sessions: sessions.len() })
    }
}

impl Command for Channels {
    const NAME: &'static str = "channels";

    type Answer = ChannelList;

    async fn run(self, api: &Inner) -> Result<ChannelList, Problem> {
        let channels = api.hub.channels(&self.prefix, self.after.as_deref(), self.limit.0.into()).into_iter();
        let listed = |name: &str, subscribers| ListedChannel { name: name.to_owned(), subscribers };
        Ok(ChannelList { channels: channels.map(|info| listed(&info.name, info.subscribers)).collect() })
    }
}

impl Command for Info {
    const NAME: &'static str = "info";

    type Answer = ServerInfo;

    async fn run(self, api: &Inner) -> Result<ServerInfo, Problem> {
        let stats = api.hub.stats();
        Ok(ServerInfo {
            version: env!("CARGO_PKG_VERSION"),
            sessions: api.gateway.registry.len(),
            going_away: api.gateway.is_going_away(),
            subscriptions: stats.subscriptions,
            publications: stats.publications,
        })
    }
}

impl Inner {
    /// Those that are open: of a user, or the one with this id.
    fn sessions(&self, user: Option<&str>, session: Option<&Id>) -> Result<Vec<Session>, Problem> {
        let registry = &self.gateway.registry;
        Ok(match whose(user, session)? {
            Whose::User(user) => registry.sessions_of(user),
            Whose::Session(Id(id)) => registry.session(*id).into_iter().collect(),
        })
    }
}

enum Whose<'a> {
    User(&'a str),
    Session(&'a Id),
}

fn whose<'a>(user: Option<&'a str>, session: Option<&'a Id>) -> Result<Whose<'a>, Problem> {
    match (user, session) {
        (Some(user), None) => Ok(Whose::User(user)),
        (None, Some(session)) => Ok(Whose::Session(session)),
        _ => Err(Problem::invalid("user", "either `user` or `session` is wanted")),
    }
}
