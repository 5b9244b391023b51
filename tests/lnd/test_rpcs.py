from impervious.lnd import rpcs
from impervious.lnd.readiness import LIGHTNING_NODE, PAYMENT_NODE
from impervious.lnd.rpcs import Rpc
from impervious.pb.lnrpc import LightningBase, StateBase
from impervious.pb.routerrpc import RouterBase

HERE = {name: value for name, value in vars(rpcs).items() if isinstance(value, Rpc)}


def test_every_path_is_one_of_lnds_with_that_answer() -> None:
    handlers = {
        path: handler
        for service in (LightningBase(), StateBase(), RouterBase())
        for path, handler in service.__mapping__().items()
    }
    for name, rpc in HERE.items():
        assert handlers[rpc.path].reply_type is rpc.response, name


def test_all_but_the_state_service_need_a_permission() -> None:
    assert [name for name, rpc in HERE.items() if rpc.permission is None] == ["SUBSCRIBE_STATE"]


def test_names_for_people_and_for_lncli() -> None:
    assert rpcs.SEND_PAYMENT.name == "SendPaymentV2"
    assert rpcs.SEND_PAYMENT.uri == "uri:/routerrpc.Router/SendPaymentV2"


def test_what_only_carries_messages_needs_neither_invoices_nor_balances() -> None:
    assert {rpc.name for rpc in LIGHTNING_NODE.rpcs} - {rpc.name for rpc in PAYMENT_NODE.rpcs} == {
        "AddInvoice",
        "DecodePayReq",
        "ListPayments",
        "ChannelBalance",
        "WalletBalance",
    }
    assert {rpc.name for rpc in HERE.values()} - {rpc.name for rpc in LIGHTNING_NODE.rpcs} == {
        "SubscribeState",
        *(rpc.name for rpc in LIGHTNING_NODE.useful),
    }
    assert {rpc.name for rpc in LIGHTNING_NODE.useful} == {"ListChannels", "SubscribeChannelEvents", "SendToRouteV2"}
