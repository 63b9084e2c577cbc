//! The way back to a live conversation, in an answer that goes elsewhere because its
//! reader has left: put in when it is sent, so that the token stands in no database
//! and before nobody's eyes at the desk.

use model::outbound::Outbound;
use store::outbox::Claimed;

use super::Deliverer;
use crate::channel::WayBack;

impl Deliverer {
    /// What is sent: with a link, if the account that the reader has left gives one.
    pub(super) fn with_way_back(&self, claimed: &Claimed) -> Outbound {
        let outbound = claimed.outbound.clone();
        let way_back = claimed.left.as_ref().and_then(|left| {
            let account = self.accounts.get(&left.account)?;
            account.channel.way_back(&left.thread, &outbound)
        });
        match way_back {
            Some(way_back) => with(outbound, &way_back),
            None => outbound,
        }
    }
}

fn with(mut outbound: Outbound, WayBack { words, url }: &WayBack) -> Outbound {
    outbound.text = format!("{}\n\n{words}\n{url}", outbound.text.trim_end());
    if let Some(html) = &mut outbound.html {
        let (words, url) = (escaped(words), escaped(url));
        html.push_str(&format!("<p>{words}<br><a href=\"{url}\">{url}</a></p>"));
    }
    outbound
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use model::id::{ConversationId, MessageId};
    use model::time::Moment;

    use super::*;

    #[test]
    fn the_link_stands_at_the_end_in_text_and_html() {
        let message_id = MessageId::authored("anna", "1");
        let outbound = Outbound {
            conversation_id: ConversationId::begun_by(&message_id),
            message_id,
            account: "support".to_owned(),
            thread: "t".to_owned(),
            recipients: Vec::new(),
            subject: None,
            text: "Yes.\n".to_owned(),
            html: Some("<p>Yes.</p>".to_owned()),
            attachments: Vec::new(),
            references: Vec::new(),
            quotes: None,
            template: None,
            automatic: false,
            created_at: Moment::from_ms(0),
        };
        let way_back = WayBack {
            words: "Go on <here>:".to_owned(),
            url: "https://example.com/?a=\"b\"&c#x=1".to_owned(),
        };
        let sent = with(outbound, &way_back);
        assert_eq!(sent.text, "Yes.\n\nGo on <here>:\nhttps://example.com/?a=\"b\"&c#x=1");
        let url = "https://example.com/?a=&quot;b&quot;&amp;c#x=1";
        let expected = format!("<p>Yes.</p><p>Go on &lt;here&gt;:<br><a href=\"{url}\">{url}</a></p>");
        assert_eq!(sent.html.as_deref(), Some(expected.as_str()));
    }
}
