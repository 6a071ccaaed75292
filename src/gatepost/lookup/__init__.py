"""Tables that are asked over the network, as the resolver role asks them: LDAP, SQL, HTTP."""
