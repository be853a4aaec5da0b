"""From a plan to a balancer's file, checked by the balancer's own parser and put in place."""
